"""Rows that the driver holds: the same rows, and no longer those of the table."""

import math
from datetime import datetime

from headwater import schemas
from headwater.in_hand import held

AT = datetime(2026, 1, 1, 12, 30, 0, 123456)
SEQUENCES = [
    ("u1", [1, 2], ["view", "click"], [AT, AT], ["a", "b"], [1.5, None], [1, 2], AT, AT),
    ("u2", [3], ["rating"], [AT], ["ж\x00"], [math.inf], [], None, AT),
    ("u3", [], [], [], [], [], [], None, None),
]


def test_held_rows_are_those_of_the_frame_nulls_and_arrays_included(spark):
    frame = spark.createDataFrame(SEQUENCES, schemas.ddl("sequences"))
    rows, count = held(frame)
    assert (rows.schema, count) == (frame.schema, 3)
    assert rows.collect() == frame.collect()


def test_no_rows_can_be_held_too(spark):
    rows, count = held(spark.createDataFrame([], schemas.ddl("topn")))
    assert (rows.columns, count, rows.collect()) == (schemas.columns("topn"), 0, [])


def test_held_rows_stay_when_the_table_changes(spark, tmp_path):
    path = str(tmp_path / "table")
    spark.range(3).write.format("delta").save(path)
    rows, _ = held(spark.read.format("delta").load(path))
    spark.range(5).write.format("delta").mode("overwrite").save(path)
    assert sorted(row["id"] for row in rows.collect()) == [0, 1, 2]
