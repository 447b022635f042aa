"""Two concurrent runs of a job without locks, as on non-local storage: nothing is written twice, and one run reports it."""

import pytest
from inside import WHEN, InProcessSite

import collect_feedback
from headwater import schemas
from headwater.errors import TableError
from headwater.job import Job
from headwater.nearline import history, sequences


@pytest.fixture
def shop(spark, tmp_path):
    """Two users with three events each, sequences, and lists that no job has read yet."""
    site = InProcessSite(spark, tmp_path / "site", {"sequence": {"max_length": 10}, "feedback": {"window_hours": 24}})
    site.click("day1.json", *((user, item, minute) for user in ("ann", "bob") for minute, item in enumerate("abc")))
    site.call("ingest_events", "ingest")
    build(site)
    publish(site, "ann", "bob")
    return site


def publish(site, *users):
    rows = [(user, 1, "a", 1.0, "", "model", 1, WHEN, WHEN, None) for user in users]
    note = {"job": "score_topn", "sequences_version": site.tables.version("sequences")}
    site.tables.append(site.tables.spark.createDataFrame(rows, schemas.ddl("topn")), "topn", note)


def without_locks(site, name):
    job = Job(name, site.config)
    job.warehouse.is_local = False
    return job


def build(site):
    return sequences.build(without_locks(site, "build_sequences"))


def collect(site):
    return collect_feedback.collect(without_locks(site, "collect_feedback"))


def copy_lists(site):
    return history.publish_history(without_locks(site, "score_topn"))


@pytest.fixture
def run_before(monkeypatch):
    """A function that makes something happen just before a module's next call of a function."""

    def before(module, function, happens):
        real = getattr(module, function)

        def called(*args):
            monkeypatch.setattr(module, function, real)
            happens()
            return real(*args)

        monkeypatch.setattr(module, function, called)

    return before


def test_new_users_are_appended_once_and_their_later_events_are_not_lost(shop, run_before):
    shop.click("day2.json", ("cid", "a", 10), ("ann", "d", 11))
    shop.call("ingest_events", "ingest")

    def another_run_comes_first():
        assert build(shop)["users_changed"] == 2
        shop.click("day3.json", ("cid", "b", 12))
        shop.call("ingest_events", "ingest")

    run_before(sequences, "commit", another_run_comes_first)
    with pytest.raises(TableError, match="sequences was written by another build_sequences"):
        build(shop)
    assert build(shop)["users_changed"] == 1
    kept = [(user, len(items)) for user, items in shop.rows("sequences", "user_id", "item_idx")]
    assert kept == [("ann", 4), ("bob", 3), ("cid", 2)]


def test_feedback_is_collected_once(shop, run_before):
    copy_lists(shop)
    collect(shop)
    so_far = len(shop.rows("feedback"))
    shop.click("day2.json", ("ann", "a", 10), ("bob", "a", 11))
    shop.call("ingest_events", "ingest")

    def another_run_collects_the_same():
        assert collect(shop)["rows_feedback"] == 2

    run_before(collect_feedback, "failpoint", another_run_collects_the_same)
    assert collect(shop)["rows_feedback"] == 2  # the same rows, stored once
    assert len(shop.rows("feedback")) == so_far + 2
    shop.click("day3.json", ("bob", "a", 12))
    shop.call("ingest_events", "ingest")

    def another_run_gets_ahead():
        shop.click("day4.json", ("ann", "a", 13))
        shop.call("ingest_events", "ingest")
        assert collect(shop)["rows_feedback"] == 2

    run_before(collect_feedback, "failpoint", another_run_gets_ahead)
    with pytest.raises(TableError, match="feedback was written by another collect_feedback"):
        collect(shop)
    assert collect(shop)["rows_feedback"] == 0
    assert len(shop.rows("feedback")) == so_far + 4


def test_lists_are_copied_to_the_history_once(shop, run_before):
    run_before(history, "append", lambda: copy_lists(shop))
    copy_lists(shop)
    assert len(shop.rows("topn_history")) == 2
    publish(shop, "cid")

    def another_run_gets_ahead():
        publish(shop, "dan")
        copy_lists(shop)

    run_before(history, "append", another_run_gets_ahead)
    with pytest.raises(TableError, match="topn_history was written by another score_topn"):
        copy_lists(shop)
    copy_lists(shop)
    assert [user for (user,) in shop.rows("topn_history", "user_id")] == ["ann", "bob", "cid", "dan"]
