"""Decide which parsed lines are events. Each other line gets one reason, the first that applies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headwater.config import Ingest, Source
from headwater.schemas import EVENT_TYPES

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
CONTROL = r"[\x00-\x1f\x7f]"
BUYING = ("purchase", "add_to_cart")


@dataclass(frozen=True)
class Limits:
    """The accepted range of times, ``earliest`` to ``latest``, and the largest value and id length."""

    earliest: datetime
    latest: datetime
    max_value: float
    max_id_length: int


def limits(config: Ingest, moment: datetime) -> Limits:
    """The limits of a batch ingested at ``moment``. ``latest`` is rounded up to a whole hour: it becomes part of the code that
    Spark generates, so a stream's batches within an hour share that code.
    """
    hours = math.ceil(moment.timestamp() / 3600 + config.future_hours)
    latest = datetime.fromtimestamp(hours * 3600, UTC)
    return Limits(config.earliest, latest, config.max_value, config.max_id_length)


def with_event_type(frame: DataFrame, source: Source) -> DataFrame:
    """Renames the source's event types, regardless of case, and puts ours in lower case. Adds ``ignored``: lines of a type that
    the source maps to nothing."""
    lower = F.lower("event_type")
    renamed = lower
    for theirs, ours in source.event_types.items():
        renamed = F.when(lower == theirs.lower(), ours).otherwise(renamed)
    unwanted = [theirs.lower() for theirs, ours in source.event_types.items() if ours is None]
    return frame.withColumns({"event_type": renamed, "ignored": F.coalesce(lower.isin(*unwanted), F.lit(False))})


def with_reason(frame: DataFrame, limit: Limits) -> DataFrame:
    """Sets ``reason`` on lines that cannot be events, and parses ``value`` as a number."""
    text, number = F.col("value"), F.col("value").try_cast("double")
    is_number = F.rlike(text, F.lit(NUMBER)) & number.isNotNull() & (F.abs(number) < float("inf"))
    longest = F.greatest(*(F.coalesce(F.length(name), F.lit(0)) for name in ("user_id", "item_id", "event_id")))
    ids = F.concat_ws("", "user_id", "item_id", "event_id", "session_id")
    kind, time = F.col("event_type"), F.col("event_time")
    fault = F.when(F.col("user_id").isNull() & F.col("visitor").isNull(), "missing_user_id")
    fault = fault.when(~F.coalesce(kind.isin(*EVENT_TYPES), F.lit(False)), "unknown_event_type")
    fault = fault.when((kind != "search") & F.col("item_id").isNull(), "missing_item_id")
    fault = fault.when(longest > limit.max_id_length, "id_too_long")
    fault = fault.when(F.rlike(ids, F.lit(CONTROL)), "bad_id")
    fault = fault.when(F.col("timestamp").isNull(), "missing_timestamp")
    fault = fault.when(time.isNull(), "bad_timestamp")
    fault = fault.when(time < F.lit(limit.earliest), "time_too_old")
    fault = fault.when(time > F.lit(limit.latest), "time_in_future")
    fault = fault.when(text.isNotNull() & ~F.coalesce(is_number, F.lit(False)), "bad_value")
    fault = fault.when(F.abs(number) > limit.max_value, "value_outlier")
    fault = fault.when(kind.isin(*BUYING) & (number < 0), "negative_value")
    reason = F.when(F.col("ignored"), F.lit(None)).otherwise(F.coalesce("reason", fault))
    return frame.withColumns({"reason": reason, "value": F.when(reason.isNull(), number)})


def with_user(frame: DataFrame) -> DataFrame:
    """Sets the user id of requests without a user to a hash of their address and agent."""
    return frame.withColumn("user_id", F.coalesce("user_id", F.left(F.sha2("visitor", 256), F.lit(32))))


def with_event_id(frame: DataFrame) -> DataFrame:
    """Adds ``id_given``; an event without an id gets the first half of a SHA-256 over its content."""
    content = (
        F.col("user_id"), F.col("item_id"), F.col("event_type"), F.unix_micros("event_time").cast("string"),
        F.col("value").cast("string"), F.col("query"), F.col("session_id"),
    )  # fmt: skip

    def with_length(part: Column) -> Column:
        # the length in front keeps different contents from giving the same text
        return F.coalesce(F.concat(F.length(part).cast("string"), F.lit(":"), part), F.lit("-"))

    hashed = F.left(F.sha2(F.concat(*(with_length(part) for part in content)), 256), F.lit(32))
    given = F.col("event_id").isNotNull()
    return frame.withColumns({"id_given": given, "event_id": F.coalesce("event_id", hashed)})
