"""Notes, merges, the change feed and locks, on real Delta tables."""

import errno
import json
import math
import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from pyspark.sql import functions as F

from headwater import schemas
from headwater.errors import TableError, UsageError
from headwater.tables import Warehouse, bytes_of, locks, log

NOW = datetime(2026, 1, 1)


def items(spark, *rows):
    full = [(item, idx, title, None, None, None, True, NOW) for item, idx, title in rows]
    return spark.createDataFrame(full, schemas.ddl("items"))


def test_a_missing_table_names_the_job_that_makes_it(warehouse):
    with pytest.raises(TableError, match=r"table sequences does not exist .* run jobs/build_sequences.py first"):
        warehouse.read("sequences")


def test_a_table_folder_without_a_first_commit_is_created(spark, warehouse):
    Path(warehouse.path("items"), "_delta_log").mkdir(parents=True)
    assert not warehouse.exists("items")
    warehouse.append(items(spark, ("a", 1, "A")), "items", {"job": "ingest_events"})
    assert warehouse.read("items").count() == 1


@pytest.mark.parametrize("table", schemas.TABLES)
def test_every_column_of_a_table_has_its_comment(spark, warehouse, table):
    warehouse.create(table)
    told = spark.sql(f"DESCRIBE TABLE delta.`{warehouse.path(table)}`").collect()
    comments = {row["col_name"]: row["comment"] for row in told if row["col_name"] in schemas.columns(table)}
    assert comments == {column: schemas.comment(table, column) for column in schemas.columns(table)}


def test_every_comment_belongs_to_an_existing_column():
    columns = {
        name for table in schemas.TABLES for column in schemas.columns(table) for name in (column, f"{table}.{column}")
    }
    assert set(schemas.COMMENTS) <= columns


def test_the_size_of_a_table_can_be_read_without_a_spark_session(spark, warehouse):
    warehouse.append(items(spark, ("a", 1, "A")), "items", {"job": "ingest_events"})
    told = spark.sql(f"DESCRIBE DETAIL delta.`{warehouse.path('items')}`").first()["sizeInBytes"]
    assert bytes_of(warehouse.root, "items") == bytes_of(f"file://{warehouse.root}", "items") >= told > 0
    assert bytes_of(warehouse.root, "topn") == bytes_of("s3a://shop/warehouse", "items") == 0


def test_the_last_note_of_a_job_is_read_from_its_commits(spark, warehouse):
    warehouse.append(items(spark, ("a", 1, "A")), "items", {"job": "ingest_events", "batch": 1})
    warehouse.append(items(spark, ("b", 2, "B")), "items", {"job": "other", "batch": 9})
    assert warehouse.last_note("items", "ingest_events") == {"job": "ingest_events", "batch": 1}
    assert warehouse.last_note("items", "nobody") is None


def test_a_batch_number_is_appended_once_and_a_lower_one_is_skipped(spark, warehouse):
    for item, number in (("a", 1), ("again", 1), ("c", 3), ("late", 2)):
        warehouse.append(items(spark, (item, 1, item)), "items", {"job": "ingest_events", "batch": number}, number)
    warehouse.append(items(spark, ("b", 1, "B")), "items", {"job": "another", "batch": 1}, 1)
    assert {row["item_id"] for row in warehouse.read("items").collect()} == {"a", "b", "c"}
    assert [commit.note.get("batch") for commit in warehouse.commits("items")] == [1, 3, 1, None]


def test_of_two_appends_from_the_same_position_only_the_first_succeeds(spark, warehouse):
    warehouse.append(items(spark, ("a", 1, "A")), "items", {"job": "t", "came_to": 1})
    position = warehouse.position("items", "t")
    warehouse.append_after(position, items(spark, ("b", 2, "B")), "items", {"job": "t", "came_to": 2})
    with pytest.raises(TableError, match="items was written by another t at the same time"):
        warehouse.append_after(position, items(spark, ("c", 3, "C")), "items", {"job": "t", "came_to": 3})
    with pytest.raises(TableError):
        warehouse.upsert(position, items(spark), items(spark, ("c", 3, "C")), "items", {"job": "t", "came_to": 3})
    warehouse.append(items(spark, ("d", 4, "D")), "items", {"job": "t", "came_to": 4})
    warehouse.append_after(warehouse.position("items", "t"), items(spark, ("e", 5, "E")), "items", {"job": "t"})
    assert {row["item_id"] for row in warehouse.read("items").collect()} == {"a", "b", "d", "e"}


@pytest.mark.parametrize("way", ["merge first", "overwrite", "merge"])
def test_an_upsert_is_refused_if_another_run_has_written_since_its_position(spark, warehouse, way):
    warehouse.append(items(spark, ("a", 1, "A")), "items", {"job": "t", "came_to": 1})
    position, new = warehouse.position("items", "t"), items(spark, ("x", 2, "X"))
    warehouse.is_local = False
    if way == "merge first":
        warehouse.merge(items(spark, ("a", 1, "Ah")), "items", {"job": "t", "came_to": 2})
        theirs = warehouse.position("items", "t")
        warehouse.upsert(theirs, items(spark), new, "items", {"job": "t", "came_to": 3})
    else:
        getattr(warehouse, way)(items(spark, ("a", 1, "A"), ("x", 2, "X")), "items", {"job": "t", "came_to": 2})
    with pytest.raises(TableError, match="written by another t"):
        warehouse.upsert(position, items(spark), new, "items", {"job": "t", "came_to": 4})
    assert sorted(row["item_id"] for row in warehouse.read("items").collect()) == ["a", "x"]


def test_of_two_concurrent_appends_of_a_batch_number_only_one_writes(spark, warehouse):
    """Without locks, as on non-local storage; each append takes a second."""
    warehouse.create("items")
    warehouse.is_local = False
    slow = F.udf(lambda title: time.sleep(1) or title)

    def append(item):
        warehouse.append(items(spark, (item, 1, item)).withColumn("title", slow("title")), "items", {"job": "j"}, 1)

    with ThreadPoolExecutor(2) as both:
        list(both.map(append, "ab"))
    assert warehouse.read("items").count() == 1


def test_a_log_read_from_files_equals_the_history_that_delta_reports(spark, warehouse, monkeypatch):
    monkeypatch.setattr(log, "FIRST_PORTION", 1)
    for batch, item in enumerate("abc"):
        warehouse.append(items(spark, (item, batch + 1, item)), "items", {"job": "ingest_events", "batch": batch})
    warehouse.append(items(spark), "items", {"job": "ingest_events", "by": "another"})
    frame = items(spark, ("d", 4, "D"))
    frame.write.format("delta").mode("append").option("userMetadata", "no note").save(warehouse.path("items"))
    read, asked = list(warehouse.commits("items")), list(log.remote_commits(warehouse._delta("items")))
    assert [commit.version for commit in read] == [5, 4, 3, 2, 1, 0]
    assert [commit.by for commit in read] == [None, "another", *["ingest_events"] * 3, None]
    for name in ("version", "operation", "note", "metrics"):
        assert [getattr(commit, name) for commit in read] == [getattr(commit, name) for commit in asked]
    assert all(abs(one.at - other.at) < 5 for one, other in zip(read, asked, strict=True))


def test_new_rows_are_written_in_a_separate_commit_that_records_no_progress(spark, warehouse):
    warehouse.append(items(spark, ("a", 1, "A"), ("b", 2, "B")), "items", {"job": "t", "came_to": 1})
    known, new = items(spark, ("a", 1, "Ah"), ("b", 2, None), ("z", 9, "nobody")), items(spark, ("c", 3, "C"))
    position = warehouse.position("items", "t")
    counts = warehouse.upsert(
        position, known, new, "items", {"job": "t", "came_to": 2}, delete_when="new.title IS NULL"
    )
    assert counts == {"inserted": 1, "updated": 1, "deleted": 1}
    assert {row["item_id"]: row["title"] for row in warehouse.read("items").collect()} == {"a": "Ah", "c": "C"}
    assert [commit.note.get("came_to") for commit in warehouse.commits("items")][:3] == [2, 1, 1]
    counts = warehouse.upsert(position, known, items(spark), "items", {"job": "t", "came_to": 3})
    assert counts == {"inserted": 0, "updated": 1, "deleted": 0}
    assert [commit.note.get("came_to") for commit in warehouse.commits("items")][:2] == [3, 2]


def test_a_merge_updates_inserts_and_deletes_and_counts_each(spark, warehouse):
    warehouse.append(items(spark, ("a", 1, "A"), ("b", 2, "B"), ("c", 3, "C")), "items", {"job": "t"})
    counts = warehouse.merge(
        items(spark, ("a", 1, "A"), ("b", 2, "bee"), ("c", 3, None), ("d", 4, "D")),
        "items",
        {"job": "t"},
        delete_when="new.title IS NULL",
        update_when="new.title <> old.title",
        insert_when="new.title IS NOT NULL",
    )
    assert counts == {"inserted": 1, "updated": 1, "deleted": 1}
    titles = {row["item_id"]: row["title"] for row in warehouse.read("items").collect()}
    assert titles == {"a": "A", "b": "bee", "d": "D"}


def test_a_table_of_another_schema_is_refused_with_the_name_of_the_column(spark, warehouse):
    spark.range(1).withColumnRenamed("id", "item_idx").write.format("delta").save(warehouse.path("items"))
    with pytest.raises(TableError, match="column item_id is missing, this release reads string"):
        warehouse.read("items")


def test_a_failed_write_leaves_version_and_rows_as_they_were(spark, warehouse):
    warehouse.append(items(spark, ("a", 1, "A")), "items", {"job": "t"})
    broken = items(spark, ("b", 2, "B")).selectExpr(
        "CAST(raise_error('disk') AS STRING) AS item_id", *schemas.columns("items")[1:]
    )
    with pytest.raises(Exception, match="disk"):
        warehouse.overwrite(broken, "items", {"job": "t"})
    assert warehouse.version("items") == 1
    assert [row["item_id"] for row in warehouse.read("items").collect()] == ["a"]


def test_changes_are_those_after_the_first_version_up_to_the_second(spark, warehouse):
    warehouse.create("topn")
    rows = [("u", 1, x, 1.0, "", "", 1, NOW, NOW, None) for x in ("a", "b", "c")]
    for row in rows:
        frame = spark.createDataFrame([row], schemas.ddl("topn"))
        warehouse.merge(frame, "topn", {"job": "t"})
    feed = warehouse.changes("topn", 1, 2).select("item_id", "_change_type").collect()
    assert sorted(tuple(row) for row in feed) == [("a", "update_preimage"), ("b", "update_postimage")]
    assert warehouse.changes("topn", 3, 3).count() == 0


def _hold(folder, seconds):
    with locks.locked(folder, ("items",), 1):
        time.sleep(seconds)


def test_a_warehouse_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    busy = locks.locked(tmp_path / "file" / "warehouse" / "_locks", ("events",), 1)
    with pytest.raises(UsageError, match="cannot be written to: Not a directory"), busy:
        pass


def test_a_full_disk_is_no_error_of_usage(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    busy = locks.locked(tmp_path / "warehouse" / "_locks", ("events",), 1)
    with (
        pytest.raises(TableError, match=r"warehouse .*/warehouse cannot be written to: No space left on device$"),
        busy,
    ):
        pass


def test_a_warehouse_that_became_read_only_is_named(tmp_path):
    (tmp_path / "warehouse" / "_locks" / "events.lock").mkdir(parents=True)  # a folder blocks even root
    busy = locks.locked(tmp_path / "warehouse" / "_locks", ("events",), 1)
    with pytest.raises(UsageError, match=r"warehouse .*/warehouse cannot be written to: "), busy:
        pass


def test_a_busy_table_is_named_after_the_timeout(tmp_path):
    other = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path, 30))
    other.start()
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "items.lock").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        with pytest.raises(TableError, match="table items has been busy"), locks.locked(tmp_path, ("items",), 0.2):
            pass
    finally:
        other.kill()
        other.join()
    with locks.locked(tmp_path, ("items",), 5):
        pass  # the kernel freed the dead writer's lock


def lists(spark, *rows):
    full = [(user, rank, item, 1.0, "", "model", 1, NOW, NOW, None) for user, rank, item in rows]
    return spark.createDataFrame(full, schemas.ddl("topn"))


def data_files(warehouse, table):
    return {Path(unquote(urlparse(file).path)) for file in warehouse.read(table).inputFiles()}


@pytest.mark.parametrize("was_there", [False, True])
def test_with_deletion_vectors_replaced_rows_are_marked_and_their_files_stay(spark, tmp_path, was_there):
    plain, marking = (Warehouse(spark, str(tmp_path / "a ware's house"), 60, marks) for marks in (False, True))
    (plain if was_there else marking).create("topn")
    first = [(f"u{user}", rank, f"i{rank}") for user in range(500) for rank in (1, 2)]
    plain.append(lists(spark, *first).coalesce(1), "topn", {"job": "t"})
    before, version = data_files(plain, "topn"), plain.version("topn")
    marking.create("topn")
    new = [("u7", 1, "i9"), ("u7", 2, None)]
    counts = marking.merge(lists(spark, *new), "topn", {"job": "t"}, delete_when="new.item_id IS NULL")
    assert counts == {"inserted": 0, "updated": 1, "deleted": 1}
    assert next(marking.commits("topn")).metrics["numTargetRowsCopied"] == "0"
    assert before < data_files(marking, "topn")
    rows = {(row["user_id"], row["rank"]): row["item_id"] for row in marking.read("topn").collect()}
    wanted = {(user, rank): item for user, rank, item in first}
    del wanted["u7", 2]
    assert rows == {**wanted, ("u7", 1): "i9"}
    feed = marking.changes("topn", version, marking.version("topn")).select("_change_type", "rank", "item_id")
    assert sorted(map(tuple, feed.collect())) == [
        ("delete", 2, "i2"),
        ("update_postimage", 1, "i9"),
        ("update_preimage", 1, "i1"),
    ]
    assert plain.read("topn").count() == 999, "what is marked is there for who would not mark anything"
    marking.purge("topn")
    assert not before & data_files(marking, "topn")
    assert plain.read("topn").count() == 999


def test_packing_does_not_rewrite_large_files(spark, warehouse, monkeypatch):
    names = [f"{n:05d}" for n in range(3_000)]
    warehouse.append(items(spark, *((name, n, name) for n, name in enumerate(names))), "items", {"job": "t"})
    large = data_files(warehouse, "items")
    for number in range(3):
        warehouse.append(items(spark, (f"new {number}", 5_000 + number, "N")), "items", {"job": "t"})
    monkeypatch.setattr("headwater.tables.warehouse.PACK_BELOW_BYTES", 8_000)
    warehouse.pack("items")
    after = data_files(warehouse, "items")
    assert (len(after - large), after & large) == (1, large)
    assert warehouse.read("items").count() == 3_003


def test_packing_rewrites_a_large_file_if_many_of_its_rows_are_marked_as_deleted(spark, tmp_path, monkeypatch):
    marking = Warehouse(spark, str(tmp_path / "warehouse"), 60, True)
    marking.create("topn")
    marking.append(lists(spark, *((f"u{n}", 1, f"i{n}") for n in range(5_000))).coalesce(1), "topn", {"job": "t"})
    (large,) = data_files(marking, "topn")
    monkeypatch.setattr("headwater.tables.warehouse.PACK_BELOW_BYTES", large.stat().st_size)
    stays = []
    for users in (range(100), range(100, 500)):  # a fiftieth, a tenth
        marking.merge(lists(spark, *((f"u{n}", 1, "new") for n in users)), "topn", {"job": "t"})
        marking.pack("topn")
        stays.append(large in data_files(marking, "topn"))
    assert stays == [True, False]
    assert marking.read("topn").groupBy("item_id").count().where("count > 1").collect() == [("new", 500)]


def test_a_vacuum_prints_nothing_on_standard_output(spark, warehouse):
    warehouse.append(items(spark, ("a", 1, "A")), "items", {"job": "t"})
    java, console = spark._jvm.java.io, getattr(getattr(spark._jvm.scala, "Console$"), "MODULE$")
    printed, before = java.ByteArrayOutputStream(), console.out()
    console.setOutDirect(java.PrintStream(printed, True))
    try:
        warehouse.vacuum("items", 0)
        assert printed.toString() == ""
        warehouse._delta("items").vacuum(1_000)  # elsewhere Delta prints as before
        assert printed.toString().startswith("Deleted 0 files")
    finally:
        console.setOutDirect(before)


def test_a_commit_counts_the_rows_that_it_wrote(spark, warehouse):
    warehouse.append(items(spark, ("a", 1, "A"), ("b", 2, "B"), ("c", 3, "C")), "items", {"job": "t"})
    warehouse.merge(items(spark, ("b", 2, "bee"), ("d", 4, "D")), "items", {"job": "t"})
    warehouse.optimize("items")
    assert [commit.rows for commit in warehouse.commits("items")][-3:] == [2, 3, 0]
    assert sum(commit.rows for commit in warehouse.commits("items")) == 5


def test_commits_of_other_writers_count_as_an_unknown_number_of_rows(spark, warehouse):
    warehouse.append(items(spark, ("a", 1, "A")), "items", {"job": "t"})
    spark.sql(f"UPDATE delta.`{warehouse.path('items')}` SET title = 'B'")
    spark.sql(f"RESTORE delta.`{warehouse.path('items')}` TO VERSION AS OF 1")
    assert [commit.rows for commit in warehouse.commits("items")] == [math.inf, math.inf, 1, 0]


def test_the_newest_commit_of_a_log_is_found_with_and_without_a_checkpoint(spark, warehouse):
    for number in range(1, 13):
        warehouse.append(items(spark, (f"i{number}", number, "x")), "items", {"job": "t", "number": number})
    logged = Path(warehouse.path("items")) / "_delta_log"
    assert json.loads((logged / "_last_checkpoint").read_text())["version"] == 10
    every = [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, None]
    assert [commit.note.get("number") for commit in warehouse.commits("items")] == every
    for version in (0, 1):
        (logged / f"{version:020d}.json").unlink()  # as Delta does with old entries
    assert [commit.version for commit in warehouse.commits("items")] == list(range(12, 1, -1))
    (logged / "_last_checkpoint").write_text('{"version": 1}')
    assert warehouse.version("items") == 12
    (logged / "_last_checkpoint").unlink()
    assert warehouse.version("items") == 12


def test_auto_compaction_does_not_change_the_counts_and_notes_of_a_write(spark, warehouse):
    for key, value in (("enabled", "true"), ("minNumFiles", "2")):
        spark.conf.set(f"spark.databricks.delta.autoCompact.{key}", value)
    try:
        for batch, item in enumerate("abc", 1):
            warehouse.append(items(spark, (item, batch, item)), "items", {"job": "ingest_events", "batch": batch})
        counts = warehouse.merge(items(spark, ("d", 4, "D")), "items", {"job": "ingest_events", "batch": 4})
        packed = warehouse.rows_version("items") < warehouse.version("items")
        spark.conf.set("spark.databricks.delta.autoCompact.minNumFiles", "4")
        for batch, item in enumerate("ef", 5):
            warehouse.append(items(spark, (item, batch, item)), "items", {"job": "ingest_events", "batch": batch})
        spark.conf.set("spark.databricks.delta.autoCompact.minNumFiles", "2")
        given = spark.createDataFrame([("a",)], "item_id string")
        deleted = warehouse.delete("items", given, "old.item_id = given.item_id", {"job": "maintain_tables"})
    finally:
        for key in ("enabled", "minNumFiles"):
            spark.conf.unset(f"spark.databricks.delta.autoCompact.{key}")
    assert packed
    assert [commit.operation for commit in warehouse.commits("items")][:2] == ["OPTIMIZE", "MERGE"]
    assert counts == {"inserted": 1, "updated": 0, "deleted": 0}
    assert deleted == 1
    assert warehouse.last_note("items", "ingest_events")["batch"] == 6
    assert sorted(row["item_id"] for row in warehouse.read("items").collect()) == ["b", "c", "d", "e", "f"]
