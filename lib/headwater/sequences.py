"""Per-user sequences: the last events with an item, oldest first, in a total order (time, then event id).

A user's new sequence depends only on the stored one and the new events, so the cost of a build is proportional to the
changes: the last L of (the last L ∪ new events) are the last L of all events.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from headwater import schemas

STEP = ("event_time", "event_id", "item_idx", "event_type", "value")
"""One event of a sequence; arrays of these structs sort by time, then event id."""


def last_index(items: DataFrame) -> int:
    """The highest item index of a catalogue, which is also its number of items; 0 if it is empty."""
    row = items.agg(F.coalesce(F.max("item_idx"), F.lit(0)).alias("last")).first()
    assert row is not None, "an aggregate has one row"
    return int(row["last"])


def ingested_until(events: DataFrame) -> datetime:
    """When the newest of some events were ingested; 1970 if there are none."""
    row = events.agg(F.coalesce(F.max(F.unix_micros("ingested_at")), F.lit(0)).alias("newest")).first()
    assert row is not None, "an aggregate has one row"
    return datetime.fromtimestamp(row["newest"] / 1e6, UTC)


def filter_steps(events: DataFrame, items: DataFrame) -> DataFrame:
    """Events that belong in a sequence: those of ``STEP_TYPES`` with an item of the catalogue.

    Returns user_id, the columns of ``STEP`` and ingested_at.
    """
    wanted = events.where(F.col("item_id").isNotNull() & F.col("event_type").isin(*schemas.STEP_TYPES))
    return wanted.join(items.select("item_id", "item_idx"), "item_id", how="inner").select(
        "user_id", *STEP, "ingested_at"
    )


def build(steps: DataFrame, stored: DataFrame, max_length: int) -> DataFrame:
    """The new row of every user in ``steps``: the columns of ``sequences`` except ``updated_at``, plus ``has_row``, which is true
    if the user has a stored row.

    ``stored`` holds the current rows of those users (others are ignored) and is read once; a step that it already holds is
    not duplicated. At most ``max_length`` steps of a user are ever collected, so a user with a million events needs no extra
    memory.
    """
    users = steps.select("user_id").distinct()
    earlier = stored.join(users, "user_id", how="left_semi").select(
        "user_id", F.arrays_zip(*STEP).alias("earlier"), F.col("seen_items").alias("earlier_items")
    )
    known = _collected(steps, max_length).join(earlier, "user_id", how="left")
    every = F.array_sort(F.array_union(F.coalesce("earlier", F.array()), "steps"))
    kept = F.slice(every, F.greatest(F.size(every) - max_length + 1, F.lit(1)), max_length)
    seen = F.array_sort(F.array_union(F.coalesce("earlier_items", F.array()), "items"))
    has_row = F.col("earlier").isNotNull().alias("has_row")
    return known.select("user_id", kept.alias("steps"), seen.alias("seen_items"), has_row).select(
        "user_id",
        *(F.col(f"steps.{name}").alias(name) for name in ("item_idx", "event_type", "event_time", "event_id", "value")),
        "seen_items",
        F.element_at("steps.event_time", -1).alias("last_event_time"),
        "has_row",
    )


def newest(feed: DataFrame) -> DataFrame:
    """The newest row of each user in a change feed of ``sequences``, without users who have been deleted since.

    An overwrite deletes and inserts a user in one commit; the insert then counts as the newer row.
    """
    columns = schemas.columns("sequences")
    alive = F.col("_change_type").isin("insert", "update_postimage")
    after = feed.where(alive | (F.col("_change_type") == "delete")).withColumn("alive", alive)
    last = F.max_by(F.struct("alive", *columns), F.struct("_commit_version", "alive")).alias("row")
    return after.groupBy("user_id").agg(last).where("row.alive").select(*(F.col(f"row.{name}") for name in columns))


def _collected(steps: DataFrame, max_length: int) -> DataFrame:
    """Per user, the newest ``max_length`` ``steps`` as an array of structs, and all distinct ``items``.

    Steps are ranked before they are collected.
    """
    newest_first = Window.partitionBy("user_id").orderBy(F.desc("event_time"), F.desc("event_id"))
    ranked = steps.withColumn("age", F.row_number().over(newest_first))
    recent = F.when(F.col("age") <= max_length, F.struct(*STEP))
    return ranked.groupBy("user_id").agg(
        F.collect_list(recent).alias("steps"), F.collect_set("item_idx").alias("items")
    )
