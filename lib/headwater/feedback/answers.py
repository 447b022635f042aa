"""The actions that answer a list and are not in ``feedback`` yet, found without reading rows that cannot matter."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headwater import schemas
from headwater.config import Feedback
from headwater.feedback.attribution import attribute
from headwater.in_hand import constant


def filter_unknown(actions: DataFrame, known: DataFrame) -> DataFrame:
    """Actions that are not in ``feedback`` yet. If all events are read again, most of them are."""
    return actions.join(known.select("event_id"), "event_id", how="left_anti")


def new_answers(actions: DataFrame, history: DataFrame, rules: Feedback, now: datetime) -> DataFrame:
    """Rows of ``feedback`` for ``actions`` (``attribution.filter_actions``, ``filter_unknown``) on lists of ``history``.

    Actions before the first list are skipped (on a first run, whole days of files), and so are lists too old or too new for
    these actions.
    """
    nothing = constant(actions.sparkSession, [], schemas.ddl("feedback"))
    begin, _ = _span(history, "generated_at")
    if begin is None:
        return nothing
    start = F.timestamp_micros(F.lit(begin))
    actions = actions.where((F.col("event_time") >= start) & (F.col("event_date") >= F.to_date(start)))
    first, last = _span(actions, "event_time")
    if first is None:
        return nothing
    oldest = F.timestamp_micros(F.lit(first - int(rules.window_hours * 3_600_000_000)))
    lists = history.where(F.col("generated_at").between(oldest, F.timestamp_micros(F.lit(last))))
    return attribute(actions, lists, rules.window_hours, rules.rewards, rules.rating_scale, now)


def _span(frame: DataFrame, column: str) -> tuple[int | None, int | None]:
    """The smallest and the largest time in a column, in whole microseconds since 1970; None if there is none."""
    span = frame.agg(F.unix_micros(F.min(column)), F.unix_micros(F.max(column))).first()
    assert span is not None, "an aggregate has one row"
    return span[0], span[1]
