"""Recent popularity of each item: the fallback of every list, a part of hybrid models, and the list of a new user.

An event counts 1 when it is new and loses half of its weight with each half-life, so no event drops out of a window overnight.
"""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headwater import sequences
from headwater.clock import DAY

HALF_LIVES = 8
"""Events are read for this many half-lives; an older event would count less than 1/256."""
DAYS_AHEAD = 2
"""The partitions that events of a client with a fast clock may be ahead of the others (``ingest.future_hours``)."""


def newest_days(events: DataFrame, half_life_days: float) -> DataFrame:
    """The partitions of ``events`` that still count, selected by date alone."""
    newest = events.agg(F.max("event_date").alias("newest")).first()
    if newest is None or newest["newest"] is None:
        return events
    days = timedelta(days=math.ceil(HALF_LIVES * half_life_days) + DAYS_AHEAD)
    return events.where(F.col("event_date") >= newest["newest"] - days)


def of_items(events: DataFrame, items: DataFrame, half_life_days: float) -> tuple[np.ndarray, float]:
    """Decayed event counts per catalogue item, without impressions, and the time they refer to (``newest_second``)."""
    done = F.col("item_id").isNotNull() & (F.col("event_type") != "impression")
    happened = newest_days(events, half_life_days).where(done)
    until = newest_second(happened)  # before the join with the catalogue, which costs more than everything else here
    steps = happened.join(items.select("item_id", "item_idx"), "item_id", how="inner")
    return decayed(steps, sequences.last_index(items), half_life_days, until), until


def newest_second(events: DataFrame) -> float:
    """The time of the newest event in epoch seconds; 0 if there is none. One that was ingested before it happened, from a client
    whose clock is fast, counts as of then: all others would be old beside it."""
    row = events.agg(F.max(F.least(seconds("event_time"), seconds("ingested_at"))).alias("newest")).first()
    assert row is not None, "an aggregate has one row"
    return float(row["newest"] or 0.0)


def decayed_counts(steps: DataFrame, n_items: int, half_life_days: float) -> np.ndarray:
    """Decayed event counts per item, float64 ``[n_items + 1]``, at the time of the newest of ``steps`` (item_idx, event_time,
    ingested_at)."""
    return decayed(steps, n_items, half_life_days, newest_second(steps))


def decayed(steps: DataFrame, n_items: int, half_life_days: float, until: float) -> np.ndarray:
    """Like ``decayed_counts``, at the time ``until`` in epoch seconds; a later step counts 1."""
    counts = np.zeros(n_items + 1)
    age = F.greatest(F.lit(until) - seconds("event_time"), F.lit(0.0)) / F.lit(DAY * half_life_days)
    fresh = steps.where((age < HALF_LIVES) & (F.col("item_idx") <= n_items))
    found = fresh.groupBy("item_idx").agg(F.sum(F.pow(F.lit(0.5), age)).alias("count")).toArrow()
    counts[found["item_idx"].to_numpy()] = found["count"].to_numpy()
    return counts


def seconds(column: str) -> Column:
    """A time in epoch seconds, with fractions."""
    return F.unix_micros(column) / F.lit(1e6)
