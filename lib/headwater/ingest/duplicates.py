"""Duplicate events: within a batch the first line is kept, across batches the stored event.

A different event with the same id is not a duplicate: if two sources both numbered their events from 1, half of the events
would be lost silently.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from headwater.frames import collected

SAME_IN_COPIES = ("user_id", "item_id", "event_type")
"""Columns in which two lines of one event agree; the time or the value may have been corrected in between."""


def with_copy(events: DataFrame) -> DataFrame:
    """Adds ``copy``, which is 1 for the first line of an ``event_id`` (by file, then line) and 2 and up for the others, and
    ``another``, which is true if a line is a different event from the first line."""
    order = Window.partitionBy("event_id").orderBy("source_file", "position")
    another = ~F.equal_null(_content(), F.first(_content()).over(order))
    return events.withColumns({"copy": F.row_number().over(order), "another": another})


def with_stored(events: DataFrame, stored: DataFrame, collect: bool = False) -> DataFrame:
    """Adds ``stored``, which is true if a ``stored`` event has the same ``event_id``; ``another`` then says whether the line is a
    different event from the stored one.

    The stored rows are first reduced to the ids of this batch, so few columns of one table are read and nothing large is
    shuffled. The matches are checkpointed, because Spark plans every cached frame again at each commit to a table that it
    reads; with ``collect`` they are collected instead.
    """
    matches = stored.join(events.select("event_id"), on="event_id", how="left_semi").dropDuplicates(["event_id"])
    matches = matches.select("event_id", _content().alias("stored_content"))
    matches = collected(matches)[0] if collect else matches.localCheckpoint()
    is_stored = F.col("stored_content").isNotNull()
    another = F.when(is_stored, ~F.equal_null("stored_content", _content())).otherwise(F.col("another"))
    marked = events.join(matches, on="event_id", how="left")
    return marked.withColumns({"stored": is_stored, "another": another}).drop("stored_content")


def _content() -> Column:
    return F.struct(*SAME_IN_COPIES)
