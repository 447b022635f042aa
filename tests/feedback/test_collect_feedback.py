"""The job: what is new since last time, exactly once, also when it is killed or the change feed is gone."""

from datetime import UTC, datetime, timedelta

import pytest

from headwater import schemas
from headwater.tables import Warehouse

pytestmark = pytest.mark.fault  # whole jobs as processes of their own

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def shop(spark, site):
    site = site({"feedback": {"window_hours": 24}})
    return site, Warehouse(spark, str(site.warehouse), 60)


def act(warehouse, *rows):
    """(event_id, user, item, minutes after NOW)"""
    full = [
        (event, user, item, "click", NOW + timedelta(minutes=minute), None, None, None, "s", "f", NOW, NOW.date())
        for event, user, item, minute in rows
    ]
    warehouse.append(warehouse.spark.createDataFrame(full, schemas.ddl("events")), "events", {"job": "ingest_events"})


def publish(warehouse, user, items):
    rows = [(user, k + 1, item, 1.0, "", "model", 1, NOW, NOW, None) for k, item in enumerate(items)]
    warehouse.append(warehouse.spark.createDataFrame(rows, schemas.ddl("topn_history")), "topn_history", {"job": "t"})


def test_each_action_is_taken_once_and_what_answers_no_list_is_counted(spark, shop):
    site, warehouse = shop
    act(warehouse, ("e1", "u", "a", 1), ("e2", "u", "z", 1), ("e0", "u", "a", -5))
    publish(warehouse, "u", "ab")
    one = site.run("collect_feedback")
    assert (one["rows_feedback"], one["rows_unattributed"], one["events_version"]) == (1, 2, 1)
    again = site.run("collect_feedback")
    assert (again["rows_feedback"], again["rows_unattributed"], again["events_version"]) == (0, 0, 1)
    act(warehouse, ("e3", "u", "b", 2))
    died = site.start("collect_feedback", failpoint="collect_feedback:after_merge")
    assert died.returncode != 0
    assert site.run("collect_feedback")["rows_feedback"] == 0
    assert site.rows(spark, "feedback", "event_id", "rank") == [("e1", 1), ("e3", 2)]


def test_before_the_first_list_the_table_is_made_and_the_events_are_done_with(spark, shop):
    site, warehouse = shop
    act(warehouse, ("e1", "u", "a", 1))
    one = site.run("collect_feedback")
    assert (one["rows_feedback"], one["rows_unattributed"]) == (0, 1)
    assert site.rows(spark, "feedback") == []


def test_without_events_one_line_names_the_job_to_run(shop):
    site, _ = shop
    failed = site.start("collect_feedback")
    assert failed.returncode == 1
    assert "run jobs/ingest_events.py first" in failed.stderr.strip().splitlines()[-1]


def test_where_the_change_feed_is_gone_the_whole_table_is_read_and_nothing_doubled(spark, shop):
    site, warehouse = shop
    publish(warehouse, "u", "ab")
    act(warehouse, ("e1", "u", "a", 1))
    site.run("collect_feedback")
    for k in range(2, 5):
        act(warehouse, (f"e{k}", "u", "b", k))
    warehouse.optimize("events")
    warehouse.vacuum("events", 0)
    assert site.run("collect_feedback")["rows_feedback"] == 3
    assert [row[0] for row in site.rows(spark, "feedback", "event_id")] == ["e1", "e2", "e3", "e4"]


def test_lists_on_their_way_to_the_history_are_waited_for(spark, shop):
    site, warehouse = shop
    act(warehouse, ("e1", "u", "a", 1))
    row = [("u", 1, "a", 1.0, "", "model", 1, NOW, NOW, None)]
    note = {"job": "score_topn", "sequences_version": 0, "model_version": 1}
    warehouse.append(spark.createDataFrame(row, schemas.ddl("topn")), "topn", note)
    assert site.run("collect_feedback")["status"] == "skipped"
    note = {"job": "score_topn", "topn_version": warehouse.version("topn")}
    warehouse.append(spark.createDataFrame(row, schemas.ddl("topn_history")), "topn_history", note)
    assert site.run("collect_feedback")["rows_feedback"] == 1
