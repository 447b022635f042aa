"""The job collects new actions exactly once, even if it dies or the change feed is gone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Timer

import pytest
from inside import InProcessSite
from pyspark.sql import functions as F

from headwater import schemas
from headwater.errors import TableError

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def shop(spark, tmp_path):
    return InProcessSite(spark, tmp_path, {"feedback": {"window_hours": 24}})


def collect(shop):
    return shop.call("collect_feedback", "collect")


def act(shop, *rows):
    """(event_id, user, item, minutes after NOW)"""
    full = [
        (event, user, item, "click", NOW + timedelta(minutes=minute), None, None, None, "s", "f", NOW, NOW.date())
        for event, user, item, minute in rows
    ]
    shop.tables.append(
        shop.tables.spark.createDataFrame(full, schemas.ddl("events")), "events", {"job": "ingest_events"}
    )


def publish(shop, user, items, table="topn_history", note=None):
    rows = [(user, k + 1, item, 1.0, "", "model", 1, NOW, NOW, None) for k, item in enumerate(items)]
    shop.tables.append(shop.tables.spark.createDataFrame(rows, schemas.ddl(table)), table, note or {"job": "t"})


def test_each_action_is_collected_once_and_unattributed_actions_are_counted(shop, monkeypatch):
    act(shop, ("e1", "u", "a", 1), ("e2", "u", "z", 1), ("e0", "u", "a", -5))
    publish(shop, "u", "ab")
    assert collect(shop) == {"rows_feedback": 1, "rows_unattributed": 2, "events_version": 1}
    assert collect(shop) == {"rows_feedback": 0, "rows_unattributed": 0, "events_version": 1}
    act(shop, ("e3", "u", "b", 2))

    import collect_feedback

    def die(name):
        if name == "collect_feedback:after_merge":
            raise KeyboardInterrupt

    monkeypatch.setattr(collect_feedback, "failpoint", die)
    with pytest.raises(KeyboardInterrupt):
        collect(shop)
    monkeypatch.undo()
    assert collect(shop)["rows_feedback"] == 0
    assert shop.rows("feedback", "event_id", "rank") == [("e1", 1), ("e3", 2)]


def test_before_the_first_list_the_table_is_created_and_events_count_as_read(shop):
    act(shop, ("e1", "u", "a", 1))
    assert collect(shop) == {"rows_feedback": 0, "rows_unattributed": 1, "events_version": 1}
    assert shop.rows("feedback") == []
    publish(shop, "u", "ab")
    assert collect(shop)["rows_feedback"] == 0


def test_without_events_the_error_names_the_job_to_run(shop):
    with pytest.raises(TableError, match=r"run jobs/ingest_events.py first"):
        collect(shop)


@pytest.mark.parametrize("lose", [InProcessSite.vacuum, InProcessSite.clean_up_log])
def test_without_the_change_feed_the_whole_table_is_read_and_nothing_is_doubled(shop, lose):
    publish(shop, "u", "ab")
    act(shop, ("e1", "u", "a", 1))
    collect(shop)
    for k in range(2, 5):
        act(shop, (f"e{k}", "u", "b", k))
    act(shop, ("e5", "u", "z", 5))
    lose(shop, "events")
    counts = collect(shop)
    assert (counts["rows_feedback"], counts["rows_unattributed"]) == (3, 1)
    assert shop.rows("feedback", "event_id") == [("e1",), ("e2",), ("e3",), ("e4",)]


def test_an_event_that_was_deleted_and_is_delivered_again_is_not_doubled(shop):
    publish(shop, "u", "ab")
    act(shop, ("e1", "u", "a", 1))
    collect(shop)
    shop.tables.delete_where("events", F.col("event_id") == "e1", {"job": "maintain_tables", "what": "keep_days"})
    act(shop, ("e1", "u", "a", 1), ("e2", "u", "b", 5))
    counts = collect(shop)
    assert (counts["rows_feedback"], counts["rows_unattributed"]) == (1, 0)
    assert shop.rows("feedback", "event_id") == [("e1",), ("e2",)]


def test_lists_and_feedback_outside_the_time_of_the_new_actions_are_not_read(shop, spark):
    publish(shop, "u", "ab")
    act(shop, ("e1", "u", "a", 1))
    collect(shop)
    for table in ("topn_history", "feedback"):
        for name in shop.tables.read(table).inputFiles():
            (shop.root / table / Path(name).name).unlink()  # a job that opens it fails
    later = ("u", 1, "a", 1.0, "", "model", 1, NOW, NOW + timedelta(days=3), None)
    shop.tables.append(spark.createDataFrame([later], schemas.ddl("topn_history")), "topn_history", {"job": "t"})
    act(shop, ("e2", "u", "a", 3 * 24 * 60 + 1))
    assert collect(shop)["rows_feedback"] == 1


def test_collecting_waits_a_while_for_published_lists_to_be_in_the_history(shop, monkeypatch):
    import collect_feedback

    act(shop, ("e1", "u", "a", 1))
    publish(shop, "u", "a", "topn", {"job": "score_topn", "sequences_version": 0, "model_version": 1})
    monkeypatch.setattr(collect_feedback, "WAIT_SECONDS", 0.0)
    assert collect(shop)["status"] == "skipped"
    monkeypatch.undo()
    note = {"job": "score_topn", "topn_version": shop.tables.version("topn")}
    copying = Timer(3, publish, (shop, "u", "a"), {"note": note})
    copying.start()
    assert collect(shop)["rows_feedback"] == 1
    copying.join()
