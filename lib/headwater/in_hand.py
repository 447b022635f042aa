"""Rows few enough for the driver: collected once by Arrow, and a constant of every plan from then on.

Most of a short round is not work on rows but Spark's planning of it, a job for each look, and the same few rows made
again. A cached frame spares the last only: its size is unknown to the planner, and each commit to a table that it reads
makes Spark plan it anew.
"""

from __future__ import annotations

from pyspark.sql import DataFrame

FEW = 5_000
"""Rows of events, or users with their sequences and lists, that a driver holds without thinking: some 50 MB at most."""


def held(frame: DataFrame) -> tuple[DataFrame, int]:
    """The same rows as a constant, and how many there are; read now, so that later changes to a table do not show."""
    rows = frame.toArrow()
    return frame.sparkSession.createDataFrame(rows, frame.schema), rows.num_rows
