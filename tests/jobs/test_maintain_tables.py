"""Maintenance as a user starts it: packing, and forgetting one person in every table, file and log."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from headwater import privacy, schemas
from headwater.tables import Warehouse

WHEN = datetime(2026, 1, 1, 12, tzinfo=UTC)
NASTY = "x' OR 1=1 --"
HOLDING = (*schemas.PERSONAL, "quarantine")


def write(site, name, *rows, dirt=()):
    """(user, item, minute)"""
    lines = [
        json.dumps({"user_id": u, "item_id": i, "event_type": "click", "timestamp": str(WHEN + timedelta(minutes=m))})
        for u, i, m in rows
    ]
    (site.landing / "api").mkdir(exist_ok=True)
    (site.landing / "api" / name).write_text("\n".join([*lines, *dirt]) + "\n")


def publish(warehouse, users):
    """Lists and feedback as scoring and collecting would leave them, with their notes."""
    spark = warehouse.spark
    rows = [(user, 1, "a", 1.0, "", "model", 1, WHEN, WHEN, None) for user in users]
    frame = spark.createDataFrame(rows, schemas.ddl("topn"))
    read = {"sequences_version": warehouse.version("sequences"), "model_version": 1}
    warehouse.append(frame, "topn", {"job": "score_topn", "mode": "full", **read})
    warehouse.append(frame, "topn_history", {"job": "score_topn", "topn_version": warehouse.version("topn")})
    rows = [(f"f{k}", user, "a", "click", WHEN, 1, 1, None, 1.0, WHEN) for k, user in enumerate(users)]
    note = {"job": "collect_feedback", "events_version": warehouse.version("events")}
    warehouse.append(spark.createDataFrame(rows, schemas.ddl("feedback")), "feedback", note)


def people(warehouse, table):
    return {row["user_id"] for row in warehouse.read(table).select("user_id").distinct().collect()}


def files_that_hold(site, text):
    """Every file of the warehouse, logs and change feed too, with a text in it, read uncompressed."""
    import pyarrow.parquet as pq

    found = []
    for file in (path for path in site.warehouse.rglob("*") if path.is_file()):
        if file.suffix == ".parquet":
            whole = json.dumps(pq.ParquetFile(file).read().to_pylist(), default=str, ensure_ascii=False)
            bounds = pq.ParquetFile(file).metadata.row_group
            spans = [bounds(k).to_dict() for k in range(pq.ParquetFile(file).metadata.num_row_groups)]
            whole += json.dumps(spans, default=str, ensure_ascii=False)
        else:
            whole = file.read_bytes().decode("utf-8", "replace")
        if text in whole:
            found.append(str(file.relative_to(site.warehouse)))
    return found


@pytest.fixture
def shop(spark, site):
    """Three people, one with an id that is SQL, through ingest and build; a rejected line of two of them."""
    site = site({"sequence": {"max_length": 10}})
    dirt = [f'{{"user_id": "{NASTY}", "item_id": ', '{"user_id": "ann", "item_id": ']
    rows = [(user, item, k) for user in (NASTY, "ann", "bob") for k, item in enumerate("abc")]
    write(site, "day1.json", *rows, dirt=dirt)
    site.run("ingest_events")
    site.run("build_sequences")
    warehouse = Warehouse(spark, str(site.warehouse), 60)
    publish(warehouse, (NASTY, "ann", "bob"))
    return site, warehouse


def test_a_person_is_gone_from_every_table_file_and_log_and_the_loop_goes_on(spark, shop):
    site, warehouse = shop
    assert files_that_hold(site, "OR 1=1")
    kept = {name: warehouse.read(name).count() for name in HOLDING}
    closing = site.run("maintain_tables", "--forget", NASTY)
    # three events, a row in each of sequences, topn, topn_history and feedback, a rejected line
    assert (closing["status"], closing["rows_deleted"], closing["tables"]) == ("ok", 3 + 4 + 1, 6)
    assert "OR 1=1" not in json.dumps(closing)
    for table in schemas.PERSONAL:
        assert people(warehouse, table) == {"ann", "bob"}
    assert [row["raw"] for row in warehouse.read("quarantine").collect()] == ['{"user_id": "ann", "item_id": ']
    assert sum(kept.values()) - sum(warehouse.read(name).count() for name in HOLDING) == 8
    assert files_that_hold(site, "OR 1=1") == []

    # every reader of a change feed goes on where it was, with what is new and no more
    again = site.run("maintain_tables", "--forget", NASTY)
    assert again["rows_deleted"] == 0
    write(site, "day2.json", ("bob", "d", 9))
    assert site.run("ingest_events")["rows_events"] == 1
    assert site.run("build_sequences")["users_changed"] == 1
    assert site.run("collect_feedback")["rows_unattributed"] + site.run("collect_feedback")["rows_feedback"] <= 1
    note = warehouse.last_note("topn", "score_topn")
    assert note["mode"] == "full"
    feed = warehouse.changes("sequences", note["sequences_version"], warehouse.version("sequences")).collect()
    assert {row["user_id"] for row in feed} == {"bob"}
    note = warehouse.last_note("topn_history", "score_topn")
    assert warehouse.changes("topn", note["topn_version"], warehouse.version("topn")).collect() == []


def test_unread_events_and_forgetting_together_lose_nothing(spark, shop):
    site, warehouse = shop
    write(site, "day2.json", ("ann", "d", 9), ("bob", "d", 9), (NASTY, "d", 9))
    site.run("ingest_events")
    assert site.run("maintain_tables", "--forget", NASTY)["rows_deleted"] == 4 + 4 + 1
    site.run("build_sequences")
    lengths = {row["user_id"]: len(row["item_idx"]) for row in warehouse.read("sequences").collect()}
    assert lengths == {"ann": 4, "bob": 4}
    assert site.run("build_sequences")["users_changed"] == 0
    assert site.run("collect_feedback")["status"] == "ok"


def test_an_unknown_person_is_no_error_and_an_empty_id_is(shop):
    site, warehouse = shop
    before = {name: warehouse.read(name).count() for name in HOLDING}
    closing = site.run("maintain_tables", "--forget", "nobody")
    assert (closing["status"], closing["rows_deleted"]) == ("ok", 0)
    assert {name: warehouse.read(name).count() for name in HOLDING} == before
    refused = site.start("maintain_tables", "--forget", " ")
    assert refused.returncode == 2
    assert "--forget needs a user id" in refused.stderr.strip().splitlines()[-1]


def test_a_half_taken_batch_is_ended_first(shop):
    site, warehouse = shop
    write(site, "day2.json", (NASTY, "d", 9))
    site.start("ingest_events", failpoint="ingest_events:after_plan")
    refused = site.start("maintain_tables", "--forget", NASTY)
    assert refused.returncode == 1
    assert "half taken; run jobs/ingest_events.py first" in refused.stderr.strip().splitlines()[-1]
    assert NASTY in people(warehouse, "events")
    site.run("ingest_events")
    assert site.run("maintain_tables", "--forget", NASTY)["rows_deleted"] == 4 + 4 + 1


def test_with_a_key_a_person_is_found_by_pseudonym(spark, site, tmp_path):
    secret = tmp_path / "key"
    secret.write_text("a secret")
    site = site({"privacy": {"key_file": str(secret)}})
    write(site, "day1.json", ("ann", "a", 1), ("bob", "a", 1))
    site.run("ingest_events")
    site.run("build_sequences")
    warehouse = Warehouse(spark, str(site.warehouse), 60)
    assert people(warehouse, "events") == {privacy.pseudonym(name, b"a secret") for name in ("ann", "bob")}
    assert site.run("maintain_tables", "--forget", "ann")["rows_deleted"] == 2
    assert people(warehouse, "sequences") == {privacy.pseudonym("bob", b"a secret")}


def test_maintenance_leaves_the_rows_and_counts_tables_and_files(shop):
    site, warehouse = shop
    before = {name: site.rows(warehouse.spark, name) for name in HOLDING}
    closing = site.run("maintain_tables", "--set", "maintain.retention_hours=0")
    assert closing["tables"] == closing["tables_vacuumed"] == len([t for t in schemas.TABLES if warehouse.exists(t)])
    assert closing["files_removed"] >= 0
    assert {name: site.rows(warehouse.spark, name) for name in HOLDING} == before
    assert site.run("build_sequences")["users_changed"] == 0
