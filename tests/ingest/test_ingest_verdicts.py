"""How accepted lines become files of `events`."""

from datetime import UTC, datetime, timedelta

import pytest
from pyspark.sql import functions as F

from headwater.ingest.verdicts import event_rows

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def adaptive(spark):
    """A function that turns adaptive execution, with partitions of 16 KiB, on or off."""
    keys = ("spark.sql.adaptive.enabled", "spark.sql.adaptive.advisoryPartitionSizeInBytes")
    before = {key: spark.conf.get(key) for key in keys}

    def choose(enabled):
        for key, value in zip(keys, (enabled, "16KB"), strict=True):
            spark.conf.set(key, value)

    yield choose
    for key, value in before.items():
        spark.conf.set(key, value)


@pytest.mark.parametrize(
    ("enabled", "rows", "files"),
    [("true", 20_000, "several"), ("true", 20, "one"), ("false", 20_000, "one"), ("false", 20, "one")],
)
def test_a_day_is_one_file_unless_it_is_large(spark, tmp_path, adaptive, enabled, rows, files):
    adaptive(enabled)
    days = [NOW, NOW + timedelta(1)]
    texts = {name: F.sha2(F.col("id").cast("string"), 256) for name in ("event_id", "user_id", "item_id")}
    rest = {name: F.lit("x") for name in ("event_type", "query", "session_id", "source", "source_file")}
    place = F.struct(F.lit(0).alias("block"), F.col("id").alias("line"))
    frame = spark.range(0, rows, 1, 4).withColumns({**texts, **rest, "value": F.lit(1.0), "position": place})
    dated = frame.withColumn("event_time", F.when(F.col("id") == 0, F.lit(days[1])).otherwise(F.lit(days[0])))
    event_rows(dated, NOW).write.partitionBy("event_date").parquet(str(tmp_path / "events"))
    written = [len(list((tmp_path / "events" / f"event_date={day:%Y-%m-%d}").glob("*.parquet"))) for day in days]
    assert written[1] == 1
    assert (written[0] > 1) == (files == "several")
    assert spark.read.parquet(str(tmp_path / "events")).count() == rows
