"""The same event twice: inside a batch the first line stands, across batches the stored one.

What has the id of an event and is another one is no duplicate: two sources that both number their events from 1 would
lose one of each two in silence.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from headwater.in_hand import held

SAME = ("user_id", "item_id", "event_type")
"""What two lines of one event have in common; a clock or a value may have been corrected in between."""


def with_copy(events: DataFrame) -> DataFrame:
    """Adds ``copy``: 1 for the first line of an ``event_id`` (by file, then line), 2 and up for the others; and ``another``:
    whether a line is not the event that the first one is."""
    order = Window.partitionBy("event_id").orderBy("source_file", "position")
    another = ~F.equal_null(_what(), F.first(_what()).over(order))
    return events.withColumns({"copy": F.row_number().over(order), "another": another})


def with_stored(events: DataFrame, stored: DataFrame, few: bool = False) -> DataFrame:
    """Adds ``stored``: whether an ``event_id`` is that of a ``stored`` event, and makes ``another`` say whether it is not
    that event.

    The stored rows are first cut to those with an id of this batch: few columns of one table are read, and nothing large
    moves. The few that are met are written down, for Spark plans anew, at each commit to a table, every cached frame that
    reads it; where the events themselves are ``few`` they are held in hand.
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
