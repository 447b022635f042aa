"""Old rows are deleted once no job needs them: from which age, in which commit, and which jobs are waited for."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headwater import schemas
from headwater.config import KeepDays
from headwater.tables import readers, upkeep

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
WEEK = timedelta(days=7)
ROWS = {
    "events": lambda name, at: (name, "ann", "a", "view", at, None, None, None, "s", "f", NOW, at.date()),
    "quarantine": lambda name, at: (name, "no_user", "s", "f", at),
    "topn_history": lambda name, at: ("ann", 1, name, 1.0, "", "model", 1, at, at, None),
    "feedback": lambda name, at: (name, "ann", "a", "view", at, 1, 1, None, 1.0, at, NOW),
}
NAMED = {"events": "event_id", "quarantine": "raw", "topn_history": "item_id", "feedback": "event_id"}


def ago(days, more=timedelta(0)):
    return NOW - timedelta(days=days) - more


def add(warehouse, table, job="ingest_events", **named):
    """Append rows, given by name with their times, in one commit and one file per day."""
    rows = [ROWS[table](name, at) for name, at in named.items()]
    frame = warehouse.spark.createDataFrame(rows, schemas.ddl(table)).coalesce(1)
    warehouse.append(frame, table, {"job": job, "batch": 1})


def mark_all_read(warehouse, *following):
    """Write the notes of jobs that have read all events."""
    for reader in following or (readers.SEQUENCES, readers.FEEDBACK):
        position = readers.progress_note(warehouse, reader, warehouse.version("events"))
        readers.annotate(warehouse, reader.output, {"job": reader.job, "max_length": 5, **position})


def delete_old(warehouse, now=NOW, **days):
    return upkeep.delete_old(warehouse, KeepDays(**days), WEEK, now)


def names(warehouse, table):
    return {row[0] for row in warehouse.read(table).select(NAMED[table]).collect()}


@pytest.mark.parametrize("table", ["quarantine", "topn_history", "feedback"])
def test_rows_older_than_keep_days_are_deleted_in_one_commit_and_only_once(warehouse, table):
    add(warehouse, table, old=ago(10.5, INSTANT), on_time=ago(10.5), new=NOW)
    add(warehouse, table, ancient=ago(400))
    before = warehouse.version(table)
    assert delete_old(warehouse, **{table: 10.5}) == (2, {})
    assert names(warehouse, table) == {"on_time", "new"}
    assert warehouse.version(table) == before + 1
    commit = next(warehouse.commits(table))
    assert (commit.operation, commit.by, commit.note["what"]) == ("DELETE", "maintain_tables", "keep_days")
    assert delete_old(warehouse, **{table: 10.5}) == (0, {})
    assert warehouse.version(table) == before + 1


def test_events_are_deleted_by_whole_days_without_rewriting_files(warehouse):
    add(warehouse, "events", old=ago(10, timedelta(hours=12) + INSTANT), same_day=ago(10, timedelta(hours=12)), new=NOW)
    mark_all_read(warehouse)
    assert delete_old(warehouse, events=10) == (1, {})
    assert names(warehouse, "events") == {"same_day", "new"}
    commit = next(warehouse.commits("events"))
    assert (commit.metrics["numRemovedFiles"], commit.metrics["numAddedFiles"]) == ("1", "0")
    assert commit.metrics["numAddedChangeFiles"] == "0"
    assert delete_old(warehouse, NOW + timedelta(hours=11), events=10) == (0, {})
    assert delete_old(warehouse, NOW + timedelta(hours=12), events=10) == (1, {})


def test_a_table_without_keep_days_keeps_its_rows(warehouse):
    for table in ROWS:
        add(warehouse, table, ancient=ago(9_000))
    mark_all_read(warehouse)
    versions = {table: warehouse.version(table) for table in ROWS}
    assert delete_old(warehouse) == (0, {})
    assert {table: warehouse.version(table) for table in ROWS} == versions
    assert delete_old(warehouse, quarantine=1) == (1, {})
    assert [table for table in ROWS if names(warehouse, table)] == ["events", "topn_history", "feedback"]


def test_the_log_of_a_deletion_holds_the_time_limit_and_no_row_data(warehouse):
    add(warehouse, "quarantine", ann=ago(40))
    delete_old(warehouse, quarantine=30)
    path = Path(warehouse.path("quarantine")) / "_delta_log" / f"{warehouse.version('quarantine'):020d}.json"
    info = json.loads(path.read_text().splitlines()[0])["commitInfo"]
    assert "ingested_at" in info["operationParameters"]["predicate"]
    assert "2026-02-08 12:00:00" in info["operationParameters"]["predicate"]
    assert "ann" not in path.read_text()


def test_a_reader_continues_at_its_position_after_rows_and_files_are_deleted(warehouse):
    add(warehouse, "events", old=ago(40), new=ago(1))
    mark_all_read(warehouse)
    after = readers.progress(warehouse, readers.SEQUENCES).after
    assert delete_old(warehouse, events=30) == (1, {})
    assert warehouse.vacuum("events", 0) == 1
    for reader in (readers.SEQUENCES, readers.FEEDBACK):
        progress = readers.progress(warehouse, reader)
        assert (progress.after, progress.unread) == (after, [])
    add(warehouse, "events", newer=NOW)
    inserted = warehouse.inserted("events", after, warehouse.version("events"))
    assert [row["event_id"] for row in inserted.collect()] == ["newer"]


@pytest.mark.parametrize("late", [readers.SEQUENCES, readers.FEEDBACK], ids=lambda reader: reader.job)
def test_old_events_are_kept_until_every_job_has_read_them(warehouse, late):
    add(warehouse, "events", read=ago(50), new=ago(1))
    mark_all_read(warehouse)
    add(warehouse, "events", late=ago(40), newer=NOW)
    mark_all_read(warehouse, *{readers.SEQUENCES, readers.FEEDBACK} - {late})
    version = warehouse.version("events")
    assert delete_old(warehouse, events=30) == (0, {"events": late.job})
    assert (names(warehouse, "events"), warehouse.version("events")) == ({"read", "new", "late", "newer"}, version)
    mark_all_read(warehouse, late)
    assert delete_old(warehouse, events=30) == (2, {})


def test_new_unread_events_do_not_delay_the_deletion_of_old_ones(warehouse):
    add(warehouse, "events", old=ago(40))
    mark_all_read(warehouse)
    add(warehouse, "events", new=NOW)
    assert delete_old(warehouse, events=30) == (1, {})
    assert names(warehouse, "events") == {"new"}
    for reader in (readers.SEQUENCES, readers.FEEDBACK):
        progress = readers.progress(warehouse, reader)
        assert [commit.by for commit in progress.unread] == ["ingest_events"]
        inserted = warehouse.inserted("events", progress.after, warehouse.version("events"))
        assert [row["event_id"] for row in inserted.collect()] == ["new"]


def test_old_events_are_kept_if_their_change_feed_is_gone(warehouse):
    add(warehouse, "events", old=ago(40))
    mark_all_read(warehouse)
    for name in ("new", "newer"):
        add(warehouse, "events", **{name: NOW})
    warehouse.optimize("events")
    assert warehouse.vacuum("events", 0) == 2
    assert delete_old(warehouse, events=30) == (0, {"events": "build_sequences, collect_feedback"})


def test_old_events_are_kept_until_sequences_were_built_once_but_not_until_feedback_was(warehouse):
    add(warehouse, "events", old=ago(40))
    assert delete_old(warehouse, events=30) == (0, {"events": "build_sequences"})
    mark_all_read(warehouse, readers.SEQUENCES)
    assert delete_old(warehouse, events=30) == (1, {})


def test_old_events_of_a_rebuilt_table_are_kept_for_jobs_that_read_the_previous_one(warehouse):
    add(warehouse, "events", old=ago(40))
    for reader in (readers.SEQUENCES, readers.FEEDBACK):
        readers.annotate(warehouse, reader.output, {"job": reader.job, reader.key: 99, "max_length": 5})
    assert delete_old(warehouse, events=30) == (0, {"events": "build_sequences, collect_feedback"})


def test_a_list_is_kept_until_all_actions_within_its_window_are_collected(warehouse):
    add(warehouse, "events", old=ago(40))
    add(warehouse, "topn_history", "score_topn", shown=ago(31), last=ago(29))
    mark_all_read(warehouse)
    add(warehouse, "events", action=ago(31) + WEEK - timedelta(hours=1))
    assert delete_old(warehouse, topn_history=30) == (0, {"topn_history": "collect_feedback"})
    mark_all_read(warehouse, readers.FEEDBACK)
    add(warehouse, "events", too_late=ago(30) + WEEK)
    assert delete_old(warehouse, topn_history=30) == (1, {})
    assert names(warehouse, "topn_history") == {"last"}


def test_item_vectors_are_kept_of_the_newest_versions_and_of_the_one_written_last(warehouse):
    assert upkeep.delete_old_vectors(warehouse, 2) == 0
    for version in (1, 3, 4, 7, 2):  # after a rollback to 2
        rows = [(version, k, f"i{k}", [1.0]) for k in (1, 2, 3)]
        frame = warehouse.spark.createDataFrame(rows, schemas.ddl("item_embeddings"))
        warehouse.append(frame, "item_embeddings", {"job": "score_topn", "model_version": version})
    assert upkeep.delete_old_vectors(warehouse, None) == 0
    assert upkeep.delete_old_vectors(warehouse, 2) == 6
    kept = warehouse.read("item_embeddings").groupBy("model_version").count().collect()
    assert {tuple(row) for row in kept} == {(7, 3), (4, 3), (2, 3)}
    before = warehouse.version("item_embeddings")
    assert upkeep.delete_old_vectors(warehouse, 2) == 0
    assert warehouse.version("item_embeddings") == before
