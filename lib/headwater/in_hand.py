"""Rows few enough for the driver: collected once by Arrow, or made there, and a constant of every plan from then on.

Most of a short round is not work on rows but Spark's planning of it, a job for each look, and the same few rows made
again. A cached frame spares the last only: its size is unknown to the planner, and each commit to a table that it reads
makes Spark plan it anew. Rows that reach Spark as Python objects cost more still: each plan that reads them, even to find
that there are none, runs them through Python workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, cast

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

FEW = 5_000
"""Rows of events, or users with their sequences and lists, that a driver holds without thinking: some 50 MB at most."""


def held(frame: DataFrame) -> tuple[DataFrame, int]:
    """The same rows as a constant, and how many there are; read now, so that later changes to a table do not show."""
    rows = frame.toArrow()
    return frame.sparkSession.createDataFrame(rows, frame.schema), rows.num_rows


def kept(frame: DataFrame, stack: ExitStack) -> DataFrame:
    """The frame, cached until the stack ends: for rows that are too many to hold. A stack frees what was made last first,
    which spares Spark planning anew what still leans on a freed frame."""
    stack.callback(frame.unpersist)
    return frame.persist()


def constant(spark: SparkSession, rows: Sequence[Sequence[Any]], ddl: str) -> DataFrame:
    """A frame of these rows, values in the order of the columns of ``ddl``; moments must know their zone."""
    schema = cast(StructType, StructType.fromDDL(ddl))
    shape = to_arrow_schema(schema)
    columns = zip(*rows, strict=True) if rows else ((),) * len(shape)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, shape, strict=True)]
    return spark.createDataFrame(pa.Table.from_arrays(arrays, schema=shape), schema)
