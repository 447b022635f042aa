"""Which messages of a topic one look takes, and what the ledger must record for it. Offsets are given, without a broker."""

from datetime import UTC, datetime

import pytest

from headwater.config import Source
from headwater.errors import HeadwaterError, UsageError
from headwater.ingest import batch, kafka, lines
from headwater.ingest.files import LandingFile
from headwater.ingest.kafka import Range

MOMENT = datetime(2024, 5, 1, tzinfo=UTC)


def topic(**more):
    return Source(format="kafka", brokers="b:9092", topic="t", **more)


def range_paths(ranges):
    return [one.path for one in ranges]


@pytest.mark.parametrize(
    ("taken", "ends", "expected", "waiting"),
    [
        ([], {0: (0, 5), 1: (3, 4)}, ["kafka://t/0/0-5", "kafka://t/1/3-4"], 0),
        ([], {0: (0, 0)}, [], 0),
        (["kafka://t/0/0-5"], {0: (0, 5)}, [], 0),
        (["kafka://t/0/0-5"], {0: (0, 7), 1: (0, 2)}, ["kafka://t/0/5-7", "kafka://t/1/0-2"], 0),
        # partition 1 uses 3 of its share of 10 messages, and partition 0 gets the other 7 in the same look
        ([], {0: (0, 25), 1: (0, 3)}, ["kafka://t/0/0-17", "kafka://t/1/0-3"], 8),
    ],
)
def test_each_partition_continues_where_the_ledger_ends(taken, ends, expected, waiting):
    known = [Range.parse(path) for path in taken]
    ranges, left = kafka.plan(topic(max_messages=20 if len(ends) == 2 else 10), known, ends, pytest.fail)
    assert (range_paths(ranges), left) == (expected, waiting)


def test_a_backlog_in_one_of_many_partitions_is_read_as_fast_as_max_messages_allows():
    ends = {partition: (0, 1 if partition % 2 else 0) for partition in range(100)} | {7: (0, 5_000)}
    ranges, left = kafka.plan(topic(max_messages=1_000), [], ends, pytest.fail)
    assert {one.partition: one.size for one in ranges} == dict.fromkeys(range(1, 100, 2), 1) | {7: 951}
    assert left == 5_000 - 951


def test_with_more_partitions_than_max_messages_each_gives_one_message():
    ranges, left = kafka.plan(topic(max_messages=2), [], dict.fromkeys(range(3), (0, 5)), pytest.fail)
    assert (range_paths(ranges), left) == (["kafka://t/0/0-1", "kafka://t/1/0-1", "kafka://t/2/0-1"], 12)


def test_a_topic_read_from_its_end_records_its_start_and_misses_no_new_partition():
    source = topic(starting="latest")
    begun, _ = kafka.plan(source, [], {0: (0, 9)}, pytest.fail)
    assert range_paths(begun) == ["kafka://t/0/9-9"]
    later, _ = kafka.plan(source, begun, {0: (0, 12), 1: (0, 2)}, pytest.fail)
    assert range_paths(later) == ["kafka://t/0/9-12", "kafka://t/1/0-2"]


def test_messages_that_expired_before_they_were_ingested_are_reported():
    told = []
    ranges, _ = kafka.plan(
        topic(), [Range("t", 0, 0, 5)], {0: (8, 9)}, lambda line, **facts: told.append(facts["count"])
    )
    assert (range_paths(ranges), told) == (["kafka://t/0/8-9"], [3])


def test_a_loss_in_an_idle_partition_is_recorded_and_not_reported_again():
    told = []
    ranges, _ = kafka.plan(topic(), [Range("t", 0, 0, 5)], {0: (8, 8)}, lambda line, **facts: told.append(line))
    assert (range_paths(ranges), len(told)) == (["kafka://t/0/8-8"], 1)
    assert kafka.plan(topic(), ranges, {0: (8, 8)}, pytest.fail) == ([], 0)


def test_a_recreated_topic_is_refused():
    with pytest.raises(
        HeadwaterError, match="partition 0 of topic t ends at offset 2, but offsets up to 5 were ingested"
    ):
        kafka.plan(topic(), [Range("t", 0, 0, 5)], {0: (0, 2)}, pytest.fail)


def test_only_the_newest_range_of_each_partition_is_read_from_the_ledger(spark):
    paths = [("kafka://t/0/0-9", 1), ("kafka://t/0/9-12", 2), ("kafka://t/1/0-3", 1), ("api/a.json", 1)]
    rows = kafka.latest_entries(spark.createDataFrame(paths, "path string, batch bigint")).collect()
    assert sorted(row["path"] for row in rows) == ["api/a.json", "kafka://t/0/9-12", "kafka://t/1/0-3"]


def test_an_unfinished_range_is_read_again_as_far_as_the_topic_still_has_it():
    row = {"path": "kafka://t/0/3-9", "batch": 2, "size_bytes": None, "modified_at": MOMENT, "taken_at": MOMENT}
    left = Range("t", 0, 3, 9).clip({0: (5, 20)})
    found = [LandingFile("kafka://t/0/3-9", left.path, None, MOMENT, topic())]
    told = []
    [again] = batch.plan(found, [row], 1, 2, MOMENT, lambda line, paths: told.append(paths))
    assert (again.number, again.files[0].uri, again.planned) == (2, "kafka://t/0/5-9", True)
    assert told == [["kafka://t/0/3-9"]]


def test_a_message_is_named_by_topic_partition_and_offset(spark):
    shape = "source_file string, position struct<block: bigint, line: bigint>"
    frame = spark.createDataFrame([("kafka://t/1", (1, 42)), ("api/a.json", (0, 7))], shape)
    assert [row[0] for row in frame.select(lines.origin()).collect()] == ["kafka://t/1/42", "api/a.json"]


def test_a_tombstone_gets_a_quarantine_reason(spark):
    shape = "value string, source_file string, position struct<block: bigint, line: bigint>"
    frame = spark.createDataFrame([(None, "kafka://t/0", (0, 1))], shape)
    assert [tuple(row) for row in lines.with_text(frame, 100).select("raw", "reason").collect()] == [("", "tombstone")]


def test_of_two_copies_of_an_event_the_numerically_lower_offset_counts(spark):
    from headwater.ingest import duplicates

    said = ("u", "i", "view")
    shape = "event_id string, source_file string, position struct<block: bigint, line: bigint>"
    rows = [("e", "kafka://t/0", (0, 10), *said), ("e", "kafka://t/0", (0, 9), *said)]
    frame = duplicates.with_copy(
        spark.createDataFrame(rows, f"{shape}, user_id string, item_id string, event_type string")
    )
    assert [row["position"]["line"] for row in frame.where("copy = 1").collect()] == [9]


def test_without_the_kafka_connector_the_error_names_the_package(spark):
    with pytest.raises(HeadwaterError, match=r"spark-sql-kafka-0-10_2\.13:4\.0\.0"):
        kafka.find(spark, [topic()], [], MOMENT, pytest.fail)


def test_client_settings_come_from_a_separate_file(spark, tmp_path):
    (tmp_path / "client").write_text("  # secret\nsecurity.protocol: SASL_SSL\n\nsasl.jaas.config=a=b \\\n   c=d;\n")
    found = kafka.settings(spark, topic(client_file=str(tmp_path / "client")))
    assert (found["security.protocol"], found["sasl.jaas.config"]) == ("SASL_SSL", "a=b c=d;")
    with pytest.raises(UsageError, match="client_file nowhere of topic t cannot be read"):
        kafka.settings(spark, topic(client_file="nowhere"))
