"""How often each item was acted on lately: the fallback of every list and the baseline a model must beat."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def recent(events: DataFrame, items: DataFrame, days: int) -> DataFrame:
    """All available items, those with most events in the ``days`` before the newest event first.

    Days are whole, so that only the newest partitions are read. Impressions do not count. Returns item_idx and events,
    in the order (events descending, item_idx); an item without a recent event has 0.
    """
    newest = events.agg(F.max("event_date").alias("newest"))
    window = events.join(F.broadcast(newest), how="cross").where(
        (F.col("event_date") > F.date_sub("newest", days)) & (F.col("event_type") != "impression")
    )
    counts = window.where(F.col("item_id").isNotNull()).groupBy("item_id").agg(F.count("*").alias("events"))
    ranked = items.where("available").join(counts, "item_id", how="left")
    return ranked.select("item_idx", F.coalesce("events", F.lit(0)).alias("events")).orderBy(
        F.desc("events"), "item_idx"
    )
