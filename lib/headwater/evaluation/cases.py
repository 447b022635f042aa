"""Held-out cases: a user's history before a cut, and the same user's targets after it.

``temporal``: one cut in time for all users; targets are all distinct items after it. ``leave_one_out``: the last event of
each user is for the test, the one before for validation. Histories never contain a held-out event.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from headwater.clock import DAY
from headwater.errors import HeadwaterError
from headwater.models import context
from headwater.models.histories import flat, left_padded
from headwater.schemas import EVENT_TYPES
from headwater.training.validation import Cases

SEGMENTS = {"new": (0, 2), "light": (3, 19), "heavy": (20, None)}
"""Groups of users by the number of events before the cut, bounds included."""


@dataclass(frozen=True)
class HeldOut:
    """Users with held-out targets; each list has one int64 array per user. ``context``: the codes of ``items``
    (``models.context``)."""

    users: np.ndarray
    items: list[np.ndarray]
    context: list[np.ndarray]
    seen: list[np.ndarray]
    targets: list[np.ndarray]
    events_before: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def segments(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name and bool mask ``[users]`` of ``all`` and of each segment that has users."""
        yield "all", np.ones(len(self), dtype=bool)
        for name, (low, high) in SEGMENTS.items():
            mask = (self.events_before >= low) & (self.events_before <= (high if high is not None else np.inf))
            if mask.any():
                yield name, mask

    def arrays(self, max_length: int) -> Cases:
        """The users with a history, as the arrays that training validates on; for others a sequence model predicts nothing."""
        users = [user for user in range(len(self)) if len(self.items[user])]
        every = (self.items, self.context, self.seen, self.targets)
        items, context, seen, targets = ([part[user] for user in users] for part in every)
        starts = [np.cumsum([0, *map(len, part)]) for part in (seen, targets)]
        item, codes = left_padded(items, max_length), left_padded(context, max_length)
        return Cases(item, codes, starts[0], flat(seen)[1], starts[1], flat(targets)[1])


def cuts(
    steps: DataFrame, test_fraction: float, validation_fraction: float, max_days: float | None = None
) -> tuple[datetime, datetime]:
    """(train_until, validation_until): training uses events before the first, validation those between, test the rest.

    Cuts are exact quantiles of event time; where one falls between two events, it is at the later. Events at the time of a
    cut are all on its later side. With ``max_days`` the test part, and the validation part before it, each span that many days at
    most, up to the newest event (``popularity.newest_second``). Raises HeadwaterError if nothing would be left to train on.
    """
    at = F.unix_micros("event_time")
    day = F.floor(at / F.lit(DAY * 1e6))
    steps = steps.select(at.alias("at"), day.alias("day"), F.least(at, F.unix_micros("ingested_at")).alias("known"))
    days = steps.groupBy("day").agg(
        F.count("*").alias("events"), F.min("at").alias("first"), F.max("known").alias("newest")
    )
    rows = days.orderBy("day").collect()
    if not rows:
        raise HeadwaterError("there are no events with an item to learn from; run jobs/ingest_events.py first")
    # only the days with a cut, two at most, are sorted
    upto = np.cumsum([row["events"] for row in rows])
    ranks = [
        math.ceil(share * (upto[-1] - 1) - 1e-9)
        for share in (1 - test_fraction - validation_fraction, 1 - test_fraction)
    ]
    places = np.searchsorted(upto, ranks, side="right")
    moments = steps.where(F.col("day").isin([rows[place]["day"] for place in places])).groupBy("day", "at").count()
    upto_then = F.sum("count").over(Window.partitionBy("day").orderBy("at"))
    wanted = []
    for place, rank in zip(places, ranks, strict=True):
        before_that_day = int(upto[place]) - rows[place]["events"]
        is_later = (F.col("day") == rows[place]["day"]) & (F.col("upto") > rank - before_that_day)
        wanted.append(F.min(F.when(is_later, F.col("at"))))
    found = moments.withColumn("upto", upto_then).agg(*wanted).first()
    assert found is not None, "an aggregate has one row"
    first, second = found
    if max_days is not None:
        longest = int(max_days * DAY * 1e6)
        second = max(second, max(row["newest"] for row in rows) - longest)
        first = max(first, second - longest)
    if first <= rows[0]["first"]:
        raise HeadwaterError(
            "the events span too little time for evaluate.test_fraction and evaluate.validation_fraction"
        )
    train_until, validation_until = (datetime.fromtimestamp(cut / 1e6, UTC) for cut in (first, second))
    return train_until, validation_until


def temporal(
    steps: DataFrame,
    start: datetime,
    end: datetime | None,
    max_length: int,
    exclude_seen: bool,
    targets: Sequence[str] = EVENT_TYPES,
) -> DataFrame:
    """One row per user with a target in ``[start, end)``, the item of an event of a type in ``targets``: user_id; items,
    types, at (epoch seconds) and values of the history, oldest first; seen, targets, events_before.

    With ``exclude_seen``, items that the user had before ``start`` are not targets.
    """
    after = steps.where(F.col("event_time") >= F.lit(start))
    if end is not None:
        after = after.where(F.col("event_time") < F.lit(end))
    return _cases(before(steps, start), after, max_length, exclude_seen, targets)


def before(steps: DataFrame, cut: datetime) -> DataFrame:
    """Steps before the cut."""
    return steps.where(F.col("event_time") < F.lit(cut))


def leave_one_out(
    steps: DataFrame,
    place_from_end: int,
    max_length: int,
    exclude_seen: bool,
    targets: Sequence[str] = EVENT_TYPES,
    since: datetime | None = None,
) -> DataFrame:
    """One row per user whose event ``place_from_end`` (1 is the last, 2 the one before) is the target, if its type is one of
    ``targets`` and its time not before ``since``. Users without an earlier event are left out."""
    earlier = without_last(steps, place_from_end)
    after = without_last(steps, place_from_end - 1).join(
        earlier.select("user_id", "event_id"), ["user_id", "event_id"], how="left_anti"
    )
    if since is not None:
        after = after.where(F.col("event_time") >= F.lit(since))
    held = _cases(earlier, after, max_length, exclude_seen, targets)
    return held.where(F.col("events_before") > 0)


def without_last(steps: DataFrame, count: int) -> DataFrame:
    """Steps without the last ``count`` of each user."""
    newest_first = Window.partitionBy("user_id").orderBy(F.desc("event_time"), F.desc("event_id"))
    return steps.withColumn("place", F.row_number().over(newest_first)).where(F.col("place") > count).drop("place")


def collect(cases: DataFrame, max_users: int) -> HeldOut:
    """Bring cases to the driver, at most ``max_users``, always the same: those with the smallest hash of the user id."""
    frame = cases.orderBy(F.xxhash64("user_id"), "user_id").limit(max_users).toPandas()

    def arrays(column: str, kind: type = np.int64) -> list[np.ndarray]:
        return [np.asarray(values if values is not None else [], dtype=kind) for values in frame[column]]

    histories = zip(arrays("types"), arrays("at", np.float64), arrays("values", np.float64), strict=True)
    return HeldOut(
        frame["user_id"].to_numpy(),
        arrays("items"),
        [context.pack(*steps, np.arange(len(steps[0])) == 0) for steps in histories],
        arrays("seen"),
        arrays("targets"),
        frame["events_before"].fillna(0).to_numpy(dtype=np.int64),
    )


def _histories(earlier: DataFrame, max_length: int) -> DataFrame:
    newest_first = Window.partitionBy("user_id").orderBy(F.desc("event_time"), F.desc("event_id"))
    names = F.array(*(F.lit(name) for name in EVENT_TYPES))
    aged = earlier.withColumn("age", F.row_number().over(newest_first))
    step = F.struct(
        (-F.col("age")).alias("place"),
        "item_idx",
        F.array_position(names, F.col("event_type")).alias("type"),
        F.col("event_time").cast("double").alias("at"),
        "value",
    )
    return aged.groupBy("user_id").agg(
        F.array_sort(F.collect_list(F.when(F.col("age") <= max_length, step))).alias("steps"),
        F.array_sort(F.collect_set("item_idx")).alias("seen"),
        F.count("*").alias("events_before"),
    )


def _cases(
    earlier: DataFrame, after: DataFrame, max_length: int, exclude_seen: bool, types: Sequence[str]
) -> DataFrame:
    targets = (
        after.where(F.col("event_type").isin(*types))
        .groupBy("user_id")
        .agg(F.array_sort(F.collect_set("item_idx")).alias("targets"))
    )
    joined = targets.join(_histories(earlier, max_length), "user_id", how="left")
    seen = F.coalesce("seen", _nothing()) if exclude_seen else _nothing()
    return joined.select(*_case(seen, F.array_except("targets", seen))).where(F.size("targets") > 0)


def _nothing() -> Column:
    return F.array().cast("array<int>")


def _case(seen: Column, targets: Column) -> list[Column]:
    """The columns of a case, from those of ``_histories``."""
    read = {"items": "item_idx", "types": "type", "at": "at", "values": "value"}
    steps = [F.col(f"steps.{step}").alias(name) for name, step in read.items()]
    before = F.coalesce("events_before", F.lit(0)).alias("events_before")
    return [F.col("user_id"), *steps, seen.alias("seen"), targets.alias("targets"), before]
