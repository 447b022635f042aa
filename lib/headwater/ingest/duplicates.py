"""Duplicate events: within a batch the first line is kept, across batches the stored event.

A different event with the same id is not a duplicate: if two sources both numbered their events from 1, half of the events
would be lost silently.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from headwater.in_hand import held

SAME = ("user_id", "item_id", "event_type")
"""Columns in which two lines of one event agree; the time or the value may have been corrected in between."""


def with_copy(events: DataFrame) -> DataFrame:
    """Adds ``copy``, which is 1 for the first line of an ``event_id`` (by file, then line) and 2 and up for the others, and
    ``another``, which is true if a line is a different event from the first line."""
    order = Window.partitionBy("event_id").orderBy("source_file", "position")
    another = ~F.equal_null(_what(), F.first(_what()).over(order))
    return events.withColumns({"copy": F.row_number().over(order), "another": another})


def with_stored(events: DataFrame, stored: DataFrame, few: bool = False) -> DataFrame:
    """Adds ``stored``, which is true if a ``stored`` event has the same ``event_id``; ``another`` then says whether the line is a
    different event from the stored one.

    The stored rows are first reduced to the ids of this batch, so few columns of one table are read and nothing large is
    shuffled. The matches are checkpointed, because Spark plans every cached frame again at each commit to a table that it
    reads; if the events are ``few``, the matches are collected instead.
    """
    met = stored.join(events.select("event_id"), on="event_id", how="left_semi").dropDuplicates(["event_id"])
    met = met.select("event_id", _what().alias("told"))
    met = held(met)[0] if few else met.localCheckpoint()
    known = F.col("told").isNotNull()
    another = F.when(known, ~F.equal_null("told", _what())).otherwise(F.col("another"))
    marked = events.join(met, on="event_id", how="left")
    return marked.withColumns({"stored": known, "another": another}).drop("told")


def _what() -> Column:
    return F.struct(*SAME)
