"""Maintenance: packing, and forgetting one person in every table, file and log."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from inside import WHEN, InProcessSite
from structlog.testing import capture_logs

from headwater import privacy, schemas
from headwater.config import KeepDays, Maintain
from headwater.errors import HeadwaterError, TableError, UsageError
from headwater.job import Job
from headwater.nearline.history import publish_history
from headwater.tables import readers, upkeep
from headwater.tables.warehouse import WRITER
from headwater.training import workplace
from headwater.work import work_folder

NASTY = "x' OR 1=1 --"
HOLDING = (*schemas.PERSONAL, "quarantine")


def publish(warehouse, users):
    """Write lists and feedback with their notes, as score_topn and collect_feedback would."""
    spark = warehouse.spark
    rows = [(user, 1, "a", 1.0, "", "model", 1, WHEN, WHEN, None) for user in users]
    frame = spark.createDataFrame(rows, schemas.ddl("topn"))
    read = readers.progress_note(warehouse, readers.LISTS, warehouse.version("sequences")) | {"model_version": 1}
    warehouse.append(frame, "topn", {"job": "score_topn", "mode": "full", **read})
    warehouse.append(
        frame,
        "topn_history",
        {"job": "score_topn", **readers.progress_note(warehouse, readers.HISTORY, warehouse.version("topn"))},
    )
    further = [(user, 1, 1, "New for you", "b", 1.0, "", "new", 1, WHEN) for user in users]
    warehouse.append(spark.createDataFrame(further, schemas.ddl("sections")), "sections", {"job": "score_topn"})
    rows = [(f"f{k}", user, "a", "click", WHEN, 1, 1, None, 1.0, WHEN, WHEN) for k, user in enumerate(users)]
    note = {
        "job": "collect_feedback",
        **readers.progress_note(warehouse, readers.FEEDBACK, warehouse.version("events")),
    }
    warehouse.append(spark.createDataFrame(rows, schemas.ddl("feedback")), "feedback", note)


def ingest(site):
    return site.call("ingest_events", "ingest")


def build(site):
    return site.call("build_sequences", "build")


def forget(site, user):
    return site.call("maintain_tables", "remove", user)


def user_ids(warehouse, table):
    return {row["user_id"] for row in warehouse.read(table).select("user_id").distinct().collect()}


def files_containing(folder, text):
    """All files below a folder, including logs and the change feed, that contain a text in their rows, statistics or bytes."""
    import pyarrow.parquet as pq

    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes().decode("utf-8", "replace")
        if path.suffix == ".parquet":
            whole += json.dumps(pq.ParquetFile(path).read().to_pylist(), default=str, ensure_ascii=False)
        if text in whole:
            found.append(str(path.relative_to(folder)))
    return found


@pytest.fixture
def marks():
    """Whether deletion vectors are used, which only mark replaced rows as deleted."""
    return False


@pytest.fixture(scope="module")
def built_shop(spark, tmp_path_factory):
    """A function that returns the folder of the shop, which is built once with deletion vectors and once without; tests work on
    copies."""

    @cache
    def folder(marks):
        root = tmp_path_factory.mktemp("built")
        site = InProcessSite(spark, root, settings(marks))
        dirt = [f'{{"user_id": "{NASTY}", "item_id": ', '{"user_id": "ann", "item_id": ']
        rows = [(user, item, k) for user in (NASTY, "ann", "bob") for k, item in enumerate("abc")]
        site.click("day1.json", *rows, dirt=dirt)
        ingest(site)
        build(site)
        publish(site.tables, (NASTY, "ann", "bob"))
        return root

    return folder


def settings(marks):
    return {"sequence": {"max_length": 10}, "tables": {"deletion_vectors": marks}}


@pytest.fixture
def shop(spark, tmp_path, marks, built_shop):
    """Three users, one with an id that is SQL, after ingest and build; two of them also have a rejected line."""
    shutil.copytree(built_shop(marks), tmp_path / "site")
    return InProcessSite(spark, tmp_path / "site", settings(marks))


@pytest.mark.parametrize("marks", [False, True])
def test_a_forgotten_user_is_in_no_table_file_or_log_and_the_loop_goes_on(shop):
    tables = shop.tables
    leftovers = {name: work_folder(shop.config) / name for name in ("training/a", "models/m/1")}
    for folder in leftovers.values():
        folder.mkdir(parents=True)
        (folder / "file").write_text("of a killed training, or a model in use")
    assert files_containing(shop.root, "OR 1=1")
    closing = forget(shop, NASTY)
    assert [folder.exists() for folder in leftovers.values()] == [False, True]
    # three events, one row each in sequences, topn, topn_history, sections and feedback, and a rejected line
    assert (closing["rows_deleted"], closing["tables"]) == (3 + 5 + 1, 7)
    for table in schemas.PERSONAL:
        assert user_ids(tables, table) == {"ann", "bob"}
    assert shop.rows("quarantine", "raw") == [('{"user_id": "ann", "item_id": ',)]
    assert tables.read("events").count() == 6
    assert files_containing(shop.root, "OR 1=1") == []
    assert forget(shop, NASTY)["rows_deleted"] == 0

    # every reader of a change feed continues at its position and reads only what is new
    shop.click("day2.json", ("bob", "d", 9))
    assert ingest(shop)["rows_events"] == 1
    assert build(shop)["users_changed"] == 1
    collected = shop.call("collect_feedback", "collect")
    assert (collected["rows_feedback"], collected["rows_unattributed"]) == (0, 1)
    note = tables.last_note("topn", "score_topn")
    assert note["mode"] == "full"
    feed = tables.changes("sequences", note["sequences_version"], tables.version("sequences")).collect()
    assert {row["user_id"] for row in feed} == {"bob"}
    note = tables.last_note("topn_history", "score_topn")
    assert tables.changes("topn", note["topn_version"], tables.version("topn")).collect() == []


def test_forgetting_a_user_before_new_events_are_read_loses_no_other_events(shop):
    shop.click("day2.json", ("ann", "d", 9), ("bob", "d", 9), (NASTY, "d", 9))
    ingest(shop)
    assert forget(shop, NASTY)["rows_deleted"] == 4 + 5 + 1
    build(shop)
    assert [(user, len(items)) for user, items in shop.rows("sequences", "user_id", "item_idx")] == [
        ("ann", 4),
        ("bob", 4),
    ]
    assert build(shop)["users_changed"] == 0
    collected = shop.call("collect_feedback", "collect")
    # all 8 events are read again; two have the time of a list, and the made-up feedback lacks them
    assert (collected["rows_feedback"], collected["rows_unattributed"]) == (2, 6)


def test_forgetting_an_unknown_user_is_no_error_but_an_empty_id_is(shop):
    before = {name: shop.rows(name) for name in HOLDING}
    assert forget(shop, "nobody")["rows_deleted"] == 0
    assert {name: shop.rows(name) for name in HOLDING} == before
    with pytest.raises(UsageError, match="--forget needs a user id"):
        forget(shop, " ")


def test_forgetting_is_refused_while_an_ingest_batch_is_unfinished(spark, shop):
    row = [("later.json", "s", "json", 1, WHEN, 2, WHEN)]
    shop.tables.append(
        spark.createDataFrame(row, schemas.ddl("ingest_files")), "ingest_files", {"job": "ingest_events"}
    )
    with pytest.raises(TableError, match=r"ingest batch 2 is unfinished; run jobs/ingest_events.py first"):
        forget(shop, NASTY)
    assert NASTY in user_ids(shop.tables, "events")


def test_forgetting_is_refused_while_lists_are_not_in_the_history_yet(spark, shop):
    row = [("ann", 1, "b", 1.0, "", "model", 1, WHEN, WHEN, None)]
    shop.tables.overwrite(spark.createDataFrame(row, schemas.ddl("topn")), "topn", {"job": "score_topn"})
    with pytest.raises(TableError, match=r"not in topn_history yet; run jobs/score_topn.py first"):
        forget(shop, NASTY)


def test_forgetting_is_refused_while_a_training_holds_everybodys_events(shop):
    with workplace.locked_folder(shop.config, {}) as folder:
        folder.mkdir()
        with pytest.raises(
            HeadwaterError, match="a training is running on everybody's events; run --forget when it has ended"
        ):
            forget(shop, NASTY)
    assert NASTY in user_ids(shop.tables, "events")
    assert forget(shop, NASTY)["folders_removed"] == 1  # what the training left


def test_with_a_privacy_key_a_user_is_forgotten_by_pseudonym(spark, tmp_path):
    secret = tmp_path / "key"
    secret.write_text("a secret")
    site = InProcessSite(spark, tmp_path / "site", {"privacy": {"key_file": str(secret)}})
    site.click("day1.json", ("ann", "a", 1), ("bob", "a", 1))
    ingest(site)
    build(site)
    assert user_ids(site.tables, "events") == {privacy.pseudonym(name, b"a secret") for name in ("ann", "bob")}
    assert forget(site, "ann")["rows_deleted"] == 2
    assert user_ids(site.tables, "sequences") == {privacy.pseudonym("bob", b"a secret")}


def test_maintenance_repeats_old_notes_in_newer_commits(shop, monkeypatch):
    noting = [table for table in schemas.TABLES if shop.tables.exists(table)]
    said = {table: shop.tables.last_note(table, WRITER[table]) for table in noting}
    lists = shop.tables.version("topn")
    monkeypatch.setattr(upkeep, "REPEAT_NOTES_AFTER", timedelta(0))
    shop.call("maintain_tables", "maintain")
    assert {table: shop.tables.last_note(table, WRITER[table]) for table in noting} == said
    for table in noting:
        newest = next(commit for commit in shop.tables.commits(table) if commit.job == WRITER[table])
        assert (newest.by, newest.rows) == ("maintain_tables", 0)
    monkeypatch.undo()
    versions = {table: shop.tables.version(table) for table in noting}
    assert versions["topn"] > lists
    shop.call("maintain_tables", "maintain")
    assert {table: shop.tables.last_note(table, WRITER[table]) for table in noting} == said
    assert (ingest(shop)["batches"], build(shop)["users_changed"]) == (0, 0)


def test_rebuilt_tables_are_read_from_their_beginning(spark, shop, monkeypatch):
    import collect_feedback

    monkeypatch.setattr(collect_feedback, "WAIT_SECONDS", 0.0)
    sequences = [(user, items) for user, items in shop.rows("sequences", "user_id", "item_idx")]
    shop.click("day2.json", ("bob", "c", 9))
    ingest(shop)
    build(shop)
    publish(shop.tables, ("bob",))
    history, feedback = shop.rows("topn_history"), shop.rows("feedback")
    for table in ("events", "ingest_files", "topn"):
        shutil.rmtree(shop.tables.path(table))
    (shop.landing / "api" / "day2.json").unlink()
    ingest(shop)
    build(shop)
    assert [(user, items) for user, items in shop.rows("sequences", "user_id", "item_idx")] == sequences
    later = WHEN + timedelta(days=1)
    rows = spark.createDataFrame([("bob", 1, "b", 1.0, "", "model", 1, later, later, None)], schemas.ddl("topn"))
    note = {"job": "score_topn", "sequences_version": 0, "model_version": 1}
    shop.tables.append(rows, "topn", note)
    assert shop.call("collect_feedback", "collect")["status"] == "skipped"
    for _ in range(2):
        publish_history(Job("score_topn", shop.config))
        assert shop.rows("topn_history") == sorted([*history, *shop.rows("topn")], key=repr)
    answered = shop.call("collect_feedback", "collect")
    assert answered["rows_feedback"] == len(shop.rows("feedback")) - len(feedback)
    assert shop.call("collect_feedback", "collect")["rows_feedback"] == 0


def test_a_repeated_note_does_not_count_as_having_read_a_rebuilt_table(spark, shop, monkeypatch):
    shutil.rmtree(shop.tables.path("events"))
    shutil.rmtree(shop.tables.path("ingest_files"))
    ingest(shop)
    monkeypatch.setattr(upkeep, "REPEAT_NOTES_AFTER", timedelta(0))
    upkeep.repeat_notes(shop.tables, ["sequences"], datetime.now(UTC).timestamp())
    assert readers.progress(shop.tables, readers.SEQUENCES).after is None


@pytest.mark.parametrize("lose", [InProcessSite.vacuum, InProcessSite.clean_up_log])
def test_a_lost_change_feed_causes_a_full_read_and_loses_no_row(spark, shop, lose):
    shop.click("day2.json", ("bob", "c", 9))
    ingest(shop)
    later = WHEN + timedelta(days=1)
    rows = spark.createDataFrame([("bob", 1, "b", 1.0, "", "model", 1, later, later, None)], schemas.ddl("topn"))
    shop.tables.merge(rows, "topn", {"job": "score_topn", "sequences_version": 0, "model_version": 1})
    history = shop.rows("topn_history")
    for table in ("events", "topn"):
        lose(shop, table)
    assert build(shop)["users_changed"] > 0
    assert build(shop)["users_changed"] == 0
    assert ("bob", 4) in [(user, len(items)) for user, items in shop.rows("sequences", "user_id", "item_idx")]
    publish_history(Job("score_topn", shop.config))
    assert set(shop.rows("topn_history")) >= {*history, *shop.rows("topn")}


def maintain_with_keep_days(site, **days):
    """Run maintenance; returns the number of deleted rows, and for each table that keeps old rows the jobs that need them."""
    rules = Maintain(retention_hours=0, keep_days=KeepDays(**days))
    with capture_logs() as logged:
        closing = site.call("maintain_tables", "maintain", maintain=rules)
    return closing["rows_deleted"], {line["table"]: line["behind"] for line in logged if "old rows" in line["event"]}


def test_old_rows_and_their_files_are_deleted_and_the_loop_goes_on(shop):
    lengths = shop.rows("sequences", "user_id", "item_idx")
    assert maintain_with_keep_days(shop, events=1, quarantine=1e-6, topn_history=7, feedback=1) == (9 + 2 + 3 + 3, {})
    for table in ("events", "quarantine", "topn_history", "feedback"):
        assert shop.rows(table) == []
        assert list(Path(shop.tables.path(table)).rglob("*.parquet")) == []
    assert shop.rows("sequences", "user_id", "item_idx") == lengths
    assert maintain_with_keep_days(shop, events=1, quarantine=1e-6, topn_history=7, feedback=1) == (0, {})
    built = build(shop)
    assert (built["users_changed"], built["events_new"]) == (0, 0)

    # repeated events count as new, and late ones are read before they are deleted
    shutil.copy(shop.landing / "api" / "day1.json", shop.landing / "api" / "day1_again.json")
    shop.click("day2.json", ("bob", "d", 9))
    assert ingest(shop)["rows_events"] == 10
    assert maintain_with_keep_days(shop, events=1) == (0, {"events": "build_sequences, collect_feedback"})
    assert build(shop)["events_new"] == 10
    sizes = {user: len(items) for user, items in shop.rows("sequences", "user_id", "item_idx")}
    assert sizes == {"ann": 3, "bob": 4, NASTY: 3}
    collected = shop.call("collect_feedback", "collect")
    assert (collected["rows_feedback"], collected["rows_unattributed"]) == (0, 10)
    assert maintain_with_keep_days(shop, events=1) == (10, {})


def test_a_user_is_also_forgotten_in_files_of_deleted_rows(shop):
    rules = Maintain(keep_days=KeepDays(events=1, quarantine=1e-6))
    assert shop.call("maintain_tables", "maintain", maintain=rules)["rows_deleted"] == 9 + 2
    assert files_containing(shop.root / "events", "OR 1=1")
    assert forget(shop, NASTY)["rows_deleted"] == 5
    assert files_containing(shop.root, "OR 1=1") == []
    assert build(shop)["users_changed"] == 0
    assert user_ids(shop.tables, "sequences") == {"ann", "bob"}


def test_maintenance_keeps_all_rows_and_counts_tables_and_files(shop):
    before = {name: shop.rows(name) for name in HOLDING}
    closing = shop.call("maintain_tables", "maintain", maintain=Maintain(retention_hours=0))
    assert (closing["folders_removed"], closing["rows_deleted"]) == (0, 0)
    assert closing["tables"] == closing["tables_vacuumed"] == len([t for t in schemas.TABLES if shop.tables.exists(t)])
    assert {name: shop.rows(name) for name in HOLDING} == before
    assert build(shop)["users_changed"] == 0
