"""The one place that asks what time it is. Transforms take a moment as an argument; jobs get it here."""

from __future__ import annotations

from datetime import UTC, datetime

DAY = 86_400.0
"""Seconds of a day."""


def now() -> datetime:
    """The present, UTC, to the microsecond (what Spark's timestamps hold)."""
    return datetime.now(UTC)
