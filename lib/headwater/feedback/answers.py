"""The actions that answer a list and are not in ``feedback`` yet, found without reading rows that cannot matter."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headwater import schemas
from headwater.config import Feedback
from headwater.feedback.attribution import attribute
from headwater.frames import frame_of


def drop_known(actions: DataFrame, known: DataFrame) -> DataFrame:
    """Actions that are not in ``feedback`` yet, of which ``known`` has rows. If all events are read again, most of them are."""
    return actions.join(known.select("event_id"), "event_id", how="left_anti")


def known_in_span(known: DataFrame, actions: DataFrame) -> DataFrame:
    """Rows of ``feedback`` from the time of ``actions``, so that its other files are skipped. Events that a change feed holds as
    new are among them only if they were deleted in between and delivered again."""
    first, last = _span(actions, "event_time")
    return known.where(F.col("event_time").between(_moment(first), _moment(last)))


def since_first_list(actions: DataFrame, history: DataFrame) -> DataFrame:
    """Actions that can answer a list of ``history`` at all: before the first one, whole days of files are skipped."""
    start = _moment(_span(history, "generated_at")[0])
    return actions.where((F.col("event_time") >= start) & (F.col("event_date") >= F.to_date(start)))


def new_answers(actions: DataFrame, history: DataFrame, rules: Feedback, now: datetime) -> DataFrame:
    """Rows of ``feedback`` for ``actions`` (``attribution.filter_actions``, ``drop_known``) on lists of ``history``. Lists too
    old or too new for these actions are skipped."""
    first, last = _span(actions, "event_time")
    if first is None:
        return frame_of(actions.sparkSession, [], schemas.ddl("feedback"))
    oldest = _moment(first - int(rules.window_hours * 3_600_000_000))
    lists = history.where(F.col("generated_at").between(oldest, _moment(last)))
    return attribute(actions, lists, rules.window_hours, rules.rewards, rules.rating_scale, now)


def _span(frame: DataFrame, column: str) -> tuple[int | None, int | None]:
    """The smallest and the largest time in a column, in whole microseconds since 1970; None if there is none."""
    span = frame.agg(F.unix_micros(F.min(column)), F.unix_micros(F.max(column))).first()
    assert span is not None, "an aggregate has one row"
    return span[0], span[1]


def _moment(micros: int | None) -> Column:
    return F.timestamp_micros(F.lit(micros).cast("bigint"))
