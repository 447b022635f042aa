"""Rows held by the driver: equal to the frame's rows, and independent of later changes to the table."""

import math
from datetime import UTC, datetime

from headwater import schemas
from headwater.frames import collected, frame_of

AT = datetime(2026, 1, 1, 12, 30, 0, 123456)
SEQUENCES = [
    ("u1", [1, 2], ["view", "click"], [AT, AT], ["a", "b"], [1.5, None], [1, 2], AT, AT),
    ("u2", [3], ["rating"], [AT], ["ж\x00"], [math.inf], [], None, AT),
    ("u3", [], [], [], [], [], [], None, None),
]


def test_held_rows_equal_those_of_the_frame_including_nulls_and_arrays(spark):
    frame = spark.createDataFrame(SEQUENCES, schemas.ddl("sequences"))
    rows, count = collected(frame)
    assert (rows.schema, count) == (frame.schema, 3)
    assert rows.collect() == frame.collect()


def test_an_empty_frame_can_be_held(spark):
    rows, count = collected(spark.createDataFrame([], schemas.ddl("topn")))
    assert (rows.columns, count, rows.collect()) == (schemas.columns("topn"), 0, [])


def test_held_rows_stay_when_the_table_changes(spark, tmp_path):
    path = str(tmp_path / "table")
    spark.range(3).write.format("delta").save(path)
    rows, _ = collected(spark.read.format("delta").load(path))
    spark.range(5).write.format("delta").mode("overwrite").save(path)
    assert sorted(row["id"] for row in rows.collect()) == [0, 1, 2]


def test_rows_made_on_the_driver_equal_those_made_by_spark_and_need_no_worker(spark):
    at = AT.replace(tzinfo=UTC)
    rows = [("u1", [1, 2], ["view", "click"], [at, at], ["a", "b"], [1.5, None], [1, 2], at, at), ("u2", *[None] * 8)]
    ddl = schemas.ddl("sequences")
    made = frame_of(spark, rows, ddl)
    assert made.collect() == spark.createDataFrame(rows, ddl).collect()
    assert made.schema == spark.createDataFrame([], ddl).schema
    plan = made._jdf.queryExecution().optimizedPlan().toString()
    assert plan.startswith("LocalRelation"), plan
    assert frame_of(spark, [], ddl).isEmpty()
