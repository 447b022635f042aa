"""Timestamps from text: ISO 8601, epoch seconds to nanoseconds (told apart by magnitude), or a source's own pattern."""

from __future__ import annotations

import re
from datetime import datetime

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from headwater.config import Source
from headwater.errors import UsageError

OFFSET = r"\s?(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$"
ISO = r"^\d{4}-\d{1,2}-\d{1,2}(?:[T ]\s?\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,12})?)?(?:" + OFFSET[:-1] + ")?)?$"
MINUTES = r"^(\d{4}-\d{1,2}-\d{1,2}[T ]\s?\d{1,2}:\d{2})(?![:\d])"
NUMBER = r"^[+-]?\d{1,30}(?:\.\d{0,12})?(?:E[+-]?\d{1,2})?$"
YEAR = r"^(?:1[0-9]|20)\d\d$"
LOG_PATTERN = "dd/MMM/yyyy:HH:mm:ss Z"


def moment(text: Column, time_zone: str = "UTC", time_format: str = "") -> Column:
    """The timestamp in ``text``, or null. ``time_zone`` applies to times without an offset.

    ``time_format`` uses Spark's pattern letters; text that does not match it is tried as ISO and as epoch.
    """
    upper = F.upper(text)
    parsed = F.when(F.rlike(upper, F.lit(NUMBER)), _epoch(upper)).otherwise(_iso(upper, time_zone))
    if not time_format:
        return parsed
    own = F.try_to_timestamp(text, F.lit(time_format))
    if not _has_offset(time_format):
        own = F.to_utc_timestamp(own, time_zone)
    return F.coalesce(own, parsed)


def published(text: Column, earliest: datetime, time_zone: str = "UTC", time_format: str = "") -> Column:
    """The time in ``text`` at which an item was published: as ``moment``, or the begin of a year; null for any other number that
    stands for a moment before ``earliest``: it is a flag, for instance."""
    year = F.when(F.rlike(text, F.lit(YEAR)), F.concat(text, F.lit("-01-01")))
    found = moment(F.coalesce(year, text), time_zone, time_format)
    is_number = year.isNull() & F.rlike(F.upper(text), F.lit(NUMBER))
    return F.when(~is_number | (found >= F.lit(earliest)), found)


def log_moment(text: Column) -> Column:
    """The timestamp of an access log, such as ``17/May/2015:10:05:03 +0000``, or null."""
    return F.try_to_timestamp(text, F.lit(LOG_PATTERN))


def check_format(spark: SparkSession, source: Source) -> None:
    """Raises UsageError if Spark cannot read times by the source's ``time_format``; it writes by more patterns than it reads."""
    if not source.time_format:
        return
    try:
        spark.range(1).select(F.try_to_timestamp(F.lit(""), F.lit(source.time_format))).collect()
        assert "%" not in source.time_format
    except Exception:
        raise UsageError(
            f"ingest.sources: Spark cannot read times by time_format {source.time_format!r}; a pattern is 'd/M/yyyy H:mm'"
        ) from None


def _iso(upper: Column, time_zone: str) -> Column:
    upper = F.regexp_replace(upper, MINUTES, "$1:00")  # the cast needs seconds
    local = F.when(F.length(upper) > 10, upper).otherwise(F.concat(upper, F.lit("T00:00:00")))
    has_offset = (F.length(upper) > 10) & F.rlike(upper, F.lit(OFFSET))
    with_zone = F.when(has_offset, upper).otherwise(F.concat(local, F.lit(f" {time_zone}")))
    return F.when(F.rlike(upper, F.lit(ISO)), F.replace(with_zone, F.lit(","), F.lit(".")).try_cast("timestamp"))


def _epoch(upper: Column) -> Column:
    number = upper.try_cast("decimal(38,9)")
    size = F.abs(number)
    # 1e11 seconds is in the year 5138; 1e11 milliseconds is in 1973, before the first web log
    micros = (
        F.when(size < F.lit(10**11), F.try_multiply(number, F.lit(10**6)))
        .when(size < F.lit(10**14), F.try_multiply(number, F.lit(10**3)))
        .when(size < F.lit(10**17), number)
        .otherwise(F.try_divide(number, F.lit(10**3)))
    )
    return F.timestamp_micros(F.floor(micros).try_cast("bigint"))


def _has_offset(pattern: str) -> bool:
    return bool(re.search("[XxZzVO]", re.sub("'[^']*'", "", pattern)))
