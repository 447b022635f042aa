"""How popular each item is lately: the fallback of every list, what a hybrid blends in, and what a newcomer is shown.

An event counts 1 when it is new and half of that after each half-life, so that nothing drops out of a window over night.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headwater import sequences
from headwater.clock import DAY

HALF_LIVES = 8
"""How many half-lives back events are read; what is older would count less than 1/256."""


def newest_days(events: DataFrame, half_life_days: int) -> DataFrame:
    """The partitions of ``events`` that still count, found by their dates alone."""
    newest = events.agg(F.max("event_date").alias("newest")).first()
    if newest is None or newest["newest"] is None:
        return events
    return events.where(F.col("event_date") >= newest["newest"] - timedelta(days=HALF_LIVES * half_life_days))


def of_items(events: DataFrame, items: DataFrame, half_life_days: int) -> tuple[np.ndarray, float]:
    """Decayed events of each item of the catalogue, impressions left out, and as of when: the time of the newest event,
    in epoch seconds, 0 where there is none."""
    done = F.col("item_id").isNotNull() & (F.col("event_type") != "impression")
    happened = newest_days(events, half_life_days).where(done)
    until = newest_second(happened)  # before they meet the catalogue, which costs more than all the rest
    steps = happened.join(items.select("item_id", "item_idx"), "item_id", how="inner")
    return decayed(steps, sequences.last_index(items), half_life_days, until), until


def newest_second(steps: DataFrame) -> float:
    """The latest ``event_time`` in epoch seconds, 0 where there is none."""
    row = steps.agg(F.max(_second()).alias("newest")).first()
    assert row is not None, "an aggregate has one row"
    return float(row["newest"] or 0.0)


def decayed_counts(steps: DataFrame, n_items: int, half_life_days: int) -> np.ndarray:
    """Decayed events of each item, float64 ``[n_items + 1]``, as of the newest of ``steps`` (item_idx, event_time)."""
    return decayed(steps, n_items, half_life_days, newest_second(steps))


def decayed(steps: DataFrame, n_items: int, half_life_days: int, until: float) -> np.ndarray:
    """The same as of a moment in epoch seconds, after which there are none."""
    counts = np.zeros(n_items + 1)
    age = (F.lit(until) - _second()) / F.lit(DAY * half_life_days)
    fresh = steps.where((age < HALF_LIVES) & (F.col("item_idx") <= n_items))
    found = fresh.groupBy("item_idx").agg(F.sum(F.pow(F.lit(0.5), age)).alias("count")).toArrow()
    counts[found["item_idx"].to_numpy()] = found["count"].to_numpy()
    return counts


def _second() -> Column:
    return F.unix_micros("event_time") / F.lit(1e6)
