"""How an id is found in a raw line, and what maintenance keeps for jobs that are behind."""

from datetime import UTC, datetime, timedelta

import pytest

from headwater import schemas
from headwater.tables import forget, readers, upkeep

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("user", "raw", "is_theirs"),
    [
        ("u1", '{"user_id": "u1"', True),
        ("u1", '{"user_id": "u11"', False),
        ("u1", "menu1,x", False),
        ("u1", "10.0.0.1 - u1 [01/Jan", True),
        ("u.1", "ux1", False),
        ("x' OR 1=1 --", '{"user_id": "x\' OR 1=1 --", "item', True),
        ("x' OR 1=1 --", '{"user_id": "u1"}', False),
        ('a"b', '{"user_id": "a\\"b"', True),
        ('a"b', '"a""b",i1', True),
        ("ann lee", "GET /u/ann%20lee HTTP", True),
        ("ann lee", "GET /?u=ann+lee HTTP", True),
        ("zoë", '{"user_id": "zo\\u00eb"', True),
        ("zoë", '{"user_id": "zo\\u00EB"', True),
        ("zoë", r"10.0.0.1 - zo\xc3\xab [01/Jan", True),
        ("zoë", "GET /u/zo%c3%ab/ HTTP", True),
        ("zoë", "zoës,1", False),
        ("team/ann", r'{"user_id": "team\/ann"', True),
        ("team/ann", "GET /u/team%2Fann HTTP", True),
        ("a&b", '{"user_id": "a\\u0026b"', True),
        ("\U0001f600", '{"user_id": "\\ud83d\\ude00"', True),
        ("12", "2026-01-12T10:12:00,7", False),
        ("12", "10.0.0.12 - 7", False),
        ("12", "i1,12,x", True),
        (".*", "anything", False),
    ],
)
def test_an_id_is_found_in_a_raw_line_as_a_whole_word(spark, user, raw, is_theirs):
    row = spark.createDataFrame([(raw, forget.token_pattern(user))], "raw string, pattern string")
    assert row.selectExpr("rlike(raw, pattern)").first()[0] is is_theirs


def event(spark, name):
    row = (name, "u", "a", "view", NOW, None, None, None, "s", "f", NOW, NOW.date())
    return spark.createDataFrame([row], schemas.ddl("events"))


def test_files_with_changes_that_a_job_has_yet_to_read_are_kept(spark, warehouse):
    warehouse.append(event(spark, "e1"), "events", {"job": "ingest_events", "batch": 1})
    warehouse.create("sequences")
    assert readers.progress(warehouse, readers.SEQUENCES).unread == []  # its first run reads the whole table
    readers.annotate(warehouse, "sequences", {"job": "build_sequences", "events_version": 1, "max_length": 5})
    for name in ("e2", "e3"):
        warehouse.append(event(spark, name), "events", {"job": "ingest_events", "batch": 2})
    later = datetime.now(UTC) + timedelta(minutes=1)
    counts, kept = upkeep.maintain(warehouse, 0, later)
    assert kept == {"events": "build_sequences"}
    assert (counts["tables"], counts["tables_vacuumed"]) == (2, 1)
    found = warehouse.changes("events", 1, warehouse.version("events")).collect()
    assert sorted(row["event_id"] for row in found) == ["e2", "e3"]

    assert upkeep.maintain(warehouse, 48, later)[1] == {}  # files younger than the retention stay in any case
    version = warehouse.version("events")
    readers.annotate(warehouse, "sequences", {"job": "build_sequences", "events_version": version, "max_length": 5})
    counts, kept = upkeep.maintain(warehouse, 0, later)
    assert kept == {}
    assert counts["files_removed"] > 0
    assert readers.progress(warehouse, readers.SEQUENCES).unread == []
    assert warehouse.read("events").count() == 3
