"""The same event twice: inside a batch the first line stands, across batches the stored one."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from headwater.in_hand import held


def with_copy(events: DataFrame) -> DataFrame:
    """Adds ``copy``: 1 for the first line of an ``event_id`` (by file, then line), 2 and up for the others."""
    order = Window.partitionBy("event_id").orderBy("source_file", "position")
    return events.withColumn("copy", F.row_number().over(order))


def with_stored(events: DataFrame, stored_ids: DataFrame, few: bool = False) -> DataFrame:
    """Adds ``stored``: whether an ``event_id`` is in ``stored_ids``.

    The stored ids are first cut to those of this batch: one column of one table is read, and nothing large moves. The
    few that are met are written down, for Spark plans anew, at each commit to a table, every cached frame that reads it;
    where the events themselves are ``few`` they are held in hand.
    """
    met = stored_ids.select("event_id").join(events.select("event_id"), on="event_id", how="left_semi").distinct()
    met = held(met)[0] if few else met.localCheckpoint()
    marked = events.join(met.withColumn("met", F.lit(True)), on="event_id", how="left")
    return marked.withColumn("stored", F.coalesce("met", F.lit(False))).drop("met")
