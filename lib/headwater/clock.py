"""The only module that reads the clock. Jobs get the time here and pass it to transforms as an argument."""

from __future__ import annotations

from datetime import UTC, datetime

DAY = 86_400.0
"""Seconds in a day."""


def now() -> datetime:
    """The current time in UTC, to the microsecond (the precision of Spark's timestamps)."""
    return datetime.now(UTC)
