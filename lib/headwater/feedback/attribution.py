"""Attribution: an action answers the newest list that its user had when they acted, if that list contains the item.

This is last touch within a window. An item that was only in an earlier list was no longer on the page, so the action answers no
list; the same holds for an action before the user's first list.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from headwater import schemas
from headwater.feedback.rewards import reward
from headwater.schemas import EventType


def filter_actions(events: DataFrame, rewards: Mapping[EventType, float]) -> DataFrame:
    """Events that can answer a list: they have an item, and their type has a reward."""
    return events.where(F.col("item_id").isNotNull() & F.col("event_type").isin(*rewards))


def with_served_list(actions: DataFrame, history: DataFrame) -> DataFrame:
    """Adds ``served_at``: the user's newest ``generated_at`` at or before ``event_time``; null if there is none.

    Lists and actions of a user are sorted together once, so a user with many of both costs n log n, not n².
    """
    others = [(name, kind) for name, kind in actions.dtypes if name not in ("user_id", "event_time")]
    empty = [F.lit(None).cast(kind).alias(name) for name, kind in others]
    given = history.select("user_id", "generated_at").distinct().withColumnRenamed("generated_at", "event_time")
    lists = given.select("user_id", "event_time", *empty, F.col("event_time").alias("_list"))
    both = actions.withColumn("_list", F.lit(None).cast("timestamp")).unionByName(lists)
    # at equal times the list sorts first, because it was there when the user acted
    until_now = Window.partitionBy("user_id").orderBy("event_time", F.col("_list").asc_nulls_last())
    newest = F.last("_list", ignorenulls=True).over(until_now.rowsBetween(Window.unboundedPreceding, 0))
    marked = both.withColumn("served_at", newest)
    return marked.where(F.col("_list").isNull()).drop("_list")


def attribute(
    events: DataFrame,
    history: DataFrame,
    window_hours: float,
    rewards: Mapping[EventType, float],
    rating_scale: float,
    now: datetime,
) -> DataFrame:
    """The rows of ``feedback`` for those of ``events`` that answer a list of ``history`` (rows of ``topn_history``).

    An action counts up to ``window_hours`` after the list was made, both ends included. Rank, model version and propensity
    come from the list's row with the item; ``collected_at`` is ``now``.
    """
    columns = ("event_id", "user_id", "item_id", "event_type", "event_time", "value")
    actions = filter_actions(events, rewards).select(*columns)
    theirs = history.join(actions.select("user_id").distinct(), "user_id", how="left_semi")
    window = F.expr(f"INTERVAL {int(window_hours * 3_600_000_000)} MICROSECOND")
    served = with_served_list(actions, theirs).where(F.col("event_time") <= F.col("served_at") + window)
    shown = theirs.select(
        "user_id", "item_id", F.col("generated_at").alias("served_at"), "rank", "model_version", "propensity"
    )
    found = served.join(shown, ["user_id", "item_id", "served_at"], how="inner")
    worth = reward(F.col("event_type"), F.col("value"), rewards, rating_scale)
    rows = found.withColumns({"reward": worth, "collected_at": F.lit(now)})
    return rows.select(schemas.columns("feedback"))
