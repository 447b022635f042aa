"""Frames small enough for the driver: collected once through Arrow, or built there, and a constant in every later plan.

A short round spends most of its time on query planning, on one Spark job per read, and on recomputing the same few rows.
Caching avoids only the recomputation: the planner does not know a cached frame's size, and each commit to a table that the
frame reads makes Spark plan it again. Rows passed to Spark as Python objects cost even more: each plan that reads them, even
to find that there are none, runs them through Python workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, cast

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

MAX_COLLECTED_ROWS = 5_000
"""Rows of events, or users with their sequences and lists, that the driver can hold safely: with sequences of 500 events 160 MB,
in Java once more."""


def collected(frame: DataFrame) -> tuple[DataFrame, int]:
    """The same rows as a constant, and their number. They are read now, so later changes to a table do not show."""
    rows = frame.toArrow()
    return frame.sparkSession.createDataFrame(rows, frame.schema), rows.num_rows


def cached(frame: DataFrame, stack: ExitStack) -> DataFrame:
    """The frame, cached until the stack closes, for rows that are too many to collect. A stack frees the newest frame first, so
    Spark does not plan again a cached frame that depends on a freed one."""
    stack.callback(frame.unpersist)
    return frame.persist()


def read_once(frame: DataFrame, collect: bool, stack: ExitStack) -> tuple[DataFrame, int]:
    """The rows, read now, and their number: collected if asked to (``collect``), otherwise cached until the stack closes. After
    the count Spark knows the size of a cached frame when it plans the rest."""
    if collect:
        return collected(frame)
    frame = cached(frame, stack)
    return frame, frame.count()


def names_in(ddl: str) -> list[str]:
    """The names of the columns in ``ddl``."""
    return _schema(ddl).names


def _schema(ddl: str) -> StructType:
    return cast(StructType, StructType.fromDDL(ddl))


def frame_of(spark: SparkSession, rows: Sequence[Sequence[Any]], ddl: str) -> DataFrame:
    """A frame of these rows, with values in the order of the columns of ``ddl``; datetimes must be time-zone aware."""
    schema = _schema(ddl)
    shape = to_arrow_schema(schema)
    columns = zip(*rows, strict=True) if rows else ((),) * len(shape)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, shape, strict=True)]
    return spark.createDataFrame(pa.Table.from_arrays(arrays, schema=shape), schema)
