"""Conversions between ``items`` and the scorer: the catalogue as arrays, a model's vectors as rows, titles for lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from headwater import popularity, schemas
from headwater.clock import DAY
from headwater.config import Topn
from headwater.errors import UsageError
from headwater.scoring.catalogue import Catalogue, split_categories
from headwater.scoring.recent import RecentCounts
from headwater.training import artifact

BROADCAST_LIMIT = 500_000
"""The largest catalogue whose names are broadcast to all executors. Sending twice as many takes longer than finding the few
that a round needs, and ten million would not fit into a driver of 2 GB."""
OUTER_BLANKS = r"(?U)^[\s\x1c-\x1f]+|[\s\x1c-\x1f]+$"
"""What Python's ``strip`` removes (``catalogue.split_categories``)."""


def load_catalogue(
    items: DataFrame, recent: RecentCounts, topn: Topn, warn: Callable[[str], object] = lambda line: None
) -> Catalogue:
    """The current state of ``items``, with ``recent`` counts, which may cover fewer items.

    Items that ``topn`` denies or that are too old for it may not be shown; its separator splits the categories of an item.
    Raises UsageError if ``topn`` or a group lists only categories without an item; warns if it denies only such.
    """
    known = items.select(
        "item_idx",
        may_be_shown(topn, recent.until).alias("available"),
        is_denied(topn).alias("denied"),
        F.coalesce("category", F.lit("")).alias("category"),
        popularity.seconds("first_seen").alias("first_seen"),
        "price",
    ).toPandas()
    rules = _named_categories(topn)
    named = {name for names in rules.values() for name in names}
    codes, names = split_categories(known["category"].tolist(), topn.category_separator, named)
    for key, wanted in rules.items():
        if wanted and not np.isin(wanted, names).any():
            line = f"{key}: no item of the catalogue has category {' or '.join(map(repr, wanted))}"
            if "deny" not in key:
                raise UsageError(line)
            warn(line)
    columns = {
        "available": known["available"].to_numpy(dtype=bool),
        "categories": codes,
        "first_seen": known["first_seen"].to_numpy(dtype=np.float64),
        "price": known["price"].to_numpy(dtype=np.float64),
    }
    size = 1 + max(len(recent.popular) - 1, int(known["item_idx"].max()) if len(known) else 0)
    arrays = {name: np.zeros((size, *values.shape[1:]), dtype=values.dtype) for name, values in columns.items()}
    for name, array in arrays.items():
        array[known["item_idx"]] = columns[name]
    popular = np.pad(recent.popular, (0, size - len(recent.popular)))
    return Catalogue(
        popular=popular,
        names=names,
        until=recent.until,
        intervals=recent.intervals,
        newcomers=recent.newcomers,
        denied=known.loc[known["denied"].astype(bool), "item_idx"].to_numpy(dtype=np.int64),
        denied_to=_denied_to(items, topn),
        **arrays,
    )


def may_be_shown(topn: Topn, until: float) -> Column:
    """Whether a row of ``items`` may be listed: available, not denied, with a title if ``topn.titled_only``, younger than
    ``topn.max_age_days`` at ``until`` (epoch seconds)."""
    shown = F.coalesce("available", F.lit(True)) & ~is_denied(topn)
    if topn.titled_only:
        shown &= F.col("title").isNotNull()
    if topn.max_age_days is None:
        return shown
    return shown & (popularity.seconds("first_seen") > until - DAY * topn.max_age_days)


def is_denied(topn: Topn) -> Column:
    """Whether a row of ``items`` is in ``topn.deny``, or in a category of ``topn.deny_categories``."""
    return F.col("item_id").isin(*topn.deny) | _has_any(topn.deny_categories, topn)


def is_left_out(topn: Topn, until: float) -> Column:
    """Whether lists by ``topn`` must not contain a row of ``items``: it may not be shown, or ``topn.categories`` lacks it."""
    other = ~_has_any(topn.categories, topn) if topn.categories else F.lit(False)
    return ~may_be_shown(topn, until) | other


def _has_any(categories: Sequence[str], topn: Topn) -> Column:
    """Whether a row of ``items`` has one of these categories."""
    if not categories:
        return F.lit(False)
    text, separator = F.coalesce("category", F.lit("")), topn.category_separator
    names = F.split(text, rf"\Q{separator}\E") if separator else F.array(text)
    names = F.transform(names, lambda name: F.regexp_replace(name, OUTER_BLANKS, ""))
    return F.arrays_overlap(names, F.array(*map(F.lit, categories)))


def _named_categories(topn: Topn) -> dict[str, tuple[str, ...]]:
    """The categories that each rule of ``topn`` names, to list or to deny, by the rule's key."""
    keys = ("categories", "deny_categories")
    rules = {f"topn.{key}": getattr(topn, key) for key in keys}
    for group in topn.strategies:
        rules |= {f"{key} of group {group.name}": getattr(group, key) or () for key in keys}
    return rules


def _denied_to(items: DataFrame, topn: Topn) -> dict[str, np.ndarray]:
    """The items in the ``deny`` of each group of users, as indices."""
    ids = {strategy.name: strategy.deny for strategy in topn.strategies if strategy.deny}
    if not ids:
        return {}
    meant = items.where(F.col("item_id").isin(*{item for some in ids.values() for item in some}))
    index = {row["item_id"]: row["item_idx"] for row in meant.select("item_id", "item_idx").collect()}
    return {
        name: np.array([index[item] for item in some if item in index], dtype=np.int64) for name, some in ids.items()
    }


def embedding_rows(spark: SparkSession, model: Path, items: DataFrame, version: int) -> DataFrame:
    """The item vectors of a model version, for the items that it knows, as rows of ``item_embeddings``."""

    vectors = artifact.ranker(model).item_vectors.numpy()
    frame = pd.DataFrame({"item_idx": np.arange(1, len(vectors), dtype=np.int32), "embedding": list(vectors[1:])})
    rows = spark.createDataFrame(frame, "item_idx int, embedding array<float>")
    named = rows.join(items.select("item_idx", "item_id"), "item_idx", how="inner")
    return named.withColumn("model_version", F.lit(version)).select(schemas.columns("item_embeddings"))


def with_titles(places: DataFrame, items: DataFrame, n_items: int) -> DataFrame:
    """Adds item_id and because_title (the title, or the id of an item without one) to places of lists; ``n_items`` is the
    number of items in the catalogue.

    A listed item that is missing from ``items`` fails the query. Its row must have been removed, because ``publish.unfit``
    finds items beyond the last one first.
    """
    large = n_items > BROADCAST_LIMIT
    if large:
        needed = places.select(F.explode(F.array("item_idx", "because_idx")).alias("item_idx")).distinct()
        items = items.join(needed, "item_idx", how="left_semi")
    names = items.select("item_idx", "item_id", F.coalesce("title", "item_id").alias("name"))
    listed = names.select("item_idx", "item_id")
    because = names.select(F.col("item_idx").alias("because_idx"), F.col("name").alias("because_title"))
    if not large:
        listed, because = F.broadcast(listed), F.broadcast(because)
    line = "table items lacks item_idx %d, which a new list contains; was its row removed by hand?"
    missing = F.raise_error(F.format_string(line, "item_idx"))
    titled = places.join(listed, "item_idx", how="left").join(because, "because_idx", how="left")
    return titled.withColumn("item_id", F.coalesce("item_id", missing))
