"""Rows of ``topn`` and ``sections``, and the differences between current and new lists."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from headwater import schemas
from headwater.config import Wording

PUBLISHED = ("insert", "update_postimage")
"""The change types in a change feed that publish a row."""
STAMPS = ("model_version", "generated_at")


def with_reasons(places: DataFrame, wording: Wording) -> DataFrame:
    """Adds ``reason`` to places with titles: a sentence that names the event behind the place, or else ``otherwise``."""
    types = F.array(*(F.lit(name) for name in schemas.EVENT_TYPES))
    done = F.when(F.col("because_type") > 0, F.try_element_at(types, "because_type"))
    reasons = F.create_map(*(F.lit(part) for pair in wording.because for part in pair))
    itself = F.when(F.col("because_idx") == F.col("item_idx"), F.lit(wording.again))
    because = F.replace(F.try_element_at(reasons, done), F.lit("{}"), F.coalesce(itself, F.col("because_title")))
    return places.withColumn("reason", F.coalesce(because, F.col("otherwise")))


def topn_rows(places: DataFrame) -> DataFrame:
    """Places with titles and reasons as rows of ``topn``, not ``stamped`` yet."""
    rows = places.where(F.col("section") == 0)
    return rows.select([column for column in schemas.columns("topn") if column not in STAMPS])


def section_rows(places: DataFrame, wording: Wording) -> DataFrame:
    """Places with titles and reasons as rows of ``sections``, not ``stamped`` yet. Sections are numbered from 1 for each
    user, and each has a heading."""
    several = places.where(F.col("section") > 0)
    first = F.concat(F.upper(F.substring("reason", 1, 1)), F.expr("substring(reason, 2)"))
    heading = F.when(F.col("strategy") == "new", F.lit(wording.new_heading)).otherwise(first)
    place = F.dense_rank().over(Window.partitionBy("user_id").orderBy("section"))
    return several.withColumn("heading", heading).withColumn("section", place)


def stamped(rows: DataFrame, table: str, model_version: int, now: datetime) -> DataFrame:
    """Rows of ``topn`` or ``sections`` with model version and time, columns in order.

    The stamps are added after the rows have been computed: a time becomes part of the code that Spark generates for a query,
    and each round of a stream would have to compile its own. For rows that have been collected no code is generated.
    """
    stamps = dict(zip(STAMPS, (F.lit(model_version), F.lit(now)), strict=True))
    return rows.withColumns(stamps).select(schemas.columns(table))


def with_deletions(rows: DataFrame, current: DataFrame, key: tuple[str, ...]) -> DataFrame:
    """Adds the rows to delete, keys without an item: the ``current`` rows whose ``key`` is missing from ``rows``."""
    gone = current.select(*key).join(rows.select(*key), list(key), how="left_anti")
    return rows.unionByName(gone, allowMissingColumns=True)


def changed_users(rows: DataFrame, current: DataFrame) -> DataFrame:
    """The users whose items, or their order, differ between ``rows`` and the ``current`` lists, and those with a list on one
    side only."""
    return (
        _list_hashes(rows, "new")
        .join(_list_hashes(current, "old"), "user_id", how="full_outer")
        .where(~F.col("new").eqNullSafe(F.col("old")))
    )


def _list_hashes(rows: DataFrame, name: str) -> DataFrame:
    """A hash of each list; two different lists share one with a probability of 2⁻⁶⁴."""
    return rows.groupBy("user_id").agg(F.bit_xor(F.xxhash64("rank", "item_id")).alias(name))


def unfit(lists: DataFrame, n_items: int) -> DataFrame:
    """The lists (``executors.LISTS``) that must never be published: an empty list, a score that is not finite, an item twice
    or outside the ``n_items`` of the catalogue, ranks that do not run from 1 without a gap, and a list that a user has twice."""
    size = F.size("rank")
    known = F.forall("item_idx", lambda item: F.coalesce(item.between(1, n_items), F.lit(False)))
    wild = F.exists("score", lambda score: score.isNull() | F.isnan(score) | (F.abs(score) == float("inf")))
    whole = (size > 0) & (F.size(F.array_distinct("item_idx")) == size)
    ranked = F.col("rank") == F.sequence(F.lit(1), F.greatest(size, F.lit(1)))
    each = lists.select("user_id", "section", (whole & known & ranked & ~wild).alias("fit"))
    checked = each.groupBy("user_id", "section").agg(F.count("*").alias("lists"), F.min("fit").alias("fit"))
    return checked.where((F.col("lists") > 1) | ~F.col("fit"))
