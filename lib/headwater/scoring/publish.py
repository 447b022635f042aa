"""Rows of ``topn`` and the changes between what stands and what is new."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from headwater import schemas

PUBLISHED = ("insert", "update_postimage")
"""Change types of the feed that show a row to somebody."""
STAMPS = ("model_version", "generated_at")


def with_reasons(lists: DataFrame) -> DataFrame:
    """Adds ``reason``, one short sentence: the event behind a row of ``lists.LISTS``, or what is said where there is none."""
    types = F.array(*(F.lit(name) for name in schemas.EVENT_TYPES))
    done = F.when(F.col("because_type") > 0, F.try_element_at(types, "because_type"))
    verbs = F.create_map(*(F.lit(part) for pair in schemas.VERBS.items() for part in pair))
    itself = F.when(F.col("because_idx") == F.col("item_idx"), F.lit("it before"))
    because = F.concat(
        F.lit("because you "), F.try_element_at(verbs, done), F.lit(" "), F.coalesce(itself, F.col("because_title"))
    )
    return lists.withColumn("reason", F.coalesce(because, F.col("otherwise")))


def topn_rows(lists: DataFrame, sequences: DataFrame) -> DataFrame:
    """Lists with titles and reasons as rows of ``topn``, not ``stamped`` yet; ``history_time`` is the last event they know of."""
    known = sequences.select("user_id", F.col("last_event_time").alias("history_time"))
    rows = lists.where(F.col("section") == 0).join(known, "user_id", how="inner")
    return rows.select([column for column in schemas.columns("topn") if column not in STAMPS])


def section_rows(lists: DataFrame) -> DataFrame:
    """Lists with titles and reasons as rows of ``sections``, not ``stamped`` yet, numbered from 1 for each user, with a
    heading each."""
    several = lists.where(F.col("section") > 0)
    first = F.concat(F.upper(F.substring("reason", 1, 1)), F.expr("substring(reason, 2)"))
    heading = F.when(F.col("strategy") == "new", F.lit("New for you")).otherwise(first)
    place = F.dense_rank().over(Window.partitionBy("user_id").orderBy("section"))
    return several.withColumn("heading", heading).withColumn("section", place)


def stamped(rows: DataFrame, table: str, model_version: int, now: datetime) -> DataFrame:
    """Rows of ``topn`` or ``sections`` with model and moment, columns in order.

    Apart from what makes the rows, for a moment becomes part of the code that Spark makes of a query, and each round of a
    stream would have code of its own; for rows in hand none is made.
    """
    stamps = dict(zip(STAMPS, (F.lit(model_version), F.lit(now)), strict=True))
    return rows.withColumns(stamps).select(schemas.columns(table))


def with_withdrawn(rows: DataFrame, standing: DataFrame, key: tuple[str, ...]) -> DataFrame:
    """Adds what to delete, keys without an item: what of the ``standing`` rows of these users has no successor by ``key``."""
    gone = standing.select(*key).join(rows.select(*key), list(key), how="left_anti")
    return rows.unionByName(gone, allowMissingColumns=True)


def changed_users(rows: DataFrame, standing: DataFrame) -> DataFrame:
    """The users of ``rows`` whose items or their order differ from the standing list, or who had none."""
    return (
        _orders(rows, "new")
        .join(_orders(standing, "old"), "user_id", how="left")
        .where(~F.col("new").eqNullSafe(F.col("old")))
    )


def _orders(rows: DataFrame, name: str) -> DataFrame:
    ordered = F.array_sort(F.collect_list(F.struct("rank", "item_id")))
    return rows.groupBy("user_id").agg(ordered.alias(name))


def unfit(lists: DataFrame) -> DataFrame:
    """Lists that must never be published: no item, no finite score, an item or a rank twice, a gap in the ranks."""
    each = lists.groupBy("user_id", "section").agg(
        F.count("*").alias("rows"),
        F.size(F.collect_set("item_id")).alias("items"),  # in one pass, which counting the distinct is not
        F.size(F.collect_set("rank")).alias("ranks"),
        F.max("rank").alias("last"),
        F.count_if(F.col("score").isNull() | F.isnan("score") | (F.abs("score") == float("inf"))).alias("not_finite"),
    )
    whole = (F.col("rows") == F.col("items")) & (F.col("rows") == F.col("ranks")) & (F.col("rows") == F.col("last"))
    return each.where(~whole | (F.col("not_finite") > 0))
