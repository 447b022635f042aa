"""The whole ingest job on hand-made landing folders, in one process."""

import json

import pytest
from landing import AGENT, SOURCES, Killed, Shop, event, request

from headwater.errors import HeadwaterError
from headwater.frames import MAX_COLLECTED_ROWS
from headwater.ingest import verdicts
from headwater.privacy import pseudonym
from headwater.tables import Warehouse


@pytest.fixture
def shop(spark, tmp_path):
    return lambda **sections: Shop(spark, tmp_path, **sections)


def fill(shop):
    shop.put("api/a.json", event("u1", "a"), event("u1", "b", 5, event_id="x"), event("u1", "b", 9, event_id="x"),
             "{broken", "", b"\xff\xfe", event("u1", "a"))  # fmt: skip
    shop.put("pos/b.csv.gz", "who,item_id,timestamp,value", "u3,c,2024-05-01,2", "u3,c", "who,item_id,timestamp,value")
    shop.put(
        "web/c.log", request("/p/d"), request("/about"), request("/p/d", 404), request("/p/d", agent="Googlebot/2.1")
    )
    shop.put("goods/g.csv", "item_id,title,text,price", "a,Cup,Red,2.5", ",None,,", "z,Plate,,cheap")


ALL = {
    "rows_in": 14, "rows_events": 4, "rows_quarantined": 6, "rows_duplicate": 2, "rows_ignored": 2, "rows_catalog": 2,
    "rows_catalog_quarantined": 1, "files": 4, "batches": 1,
}  # fmt: skip
REASONS = ["bot_agent", "empty_line", "malformed_csv", "malformed_json", "missing_item_id", "not_utf8"]


def test_an_empty_landing_folder_makes_empty_tables(shop):
    shop = shop()
    assert set(shop.ingest().values()) == {0}
    assert [shop.rows(table) for table in ("events", "quarantine", "items", "ingest_files")] == [[], [], [], []]


@pytest.mark.parametrize("few", [MAX_COLLECTED_ROWS, 0])
def test_every_line_of_every_format_is_accounted_for_and_ingested_once(shop, monkeypatch, few):
    monkeypatch.setattr(verdicts, "MAX_COLLECTED_ROWS", few)
    shop = shop()
    fill(shop)
    closing = shop.ingest()
    assert closing == ALL
    assert shop.reasons() == sorted([*REASONS, "repeated_header"])
    assert shop.rows("events", "source", "item_id", "event_type", "value") == [
        ("combined_log", "d", "view", None),
        ("csv", "c", "purchase", 2.0),
        ("json", "a", "view", None),
        ("json", "b", "view", None),
    ]
    assert shop.rows("items", "item_id", "title", "text", "price") == [
        ("a", "Cup", "Red", 2.5),
        ("b", None, None, None),
        ("c", None, None, None),
        ("d", None, None, None),
        ("z", "Plate", None, None),
    ]
    assert sorted(index for (index,) in shop.rows("items", "item_idx")) == [1, 2, 3, 4, 5]
    before = {table: shop.rows(table) for table in ("events", "quarantine", "items", "ingest_files")}
    assert set(shop.ingest().values()) == {0}
    assert {table: shop.rows(table) for table in before} == before


def test_a_landing_folder_on_another_file_system_is_read_like_a_local_one(shop, spark):
    shop = shop()
    fill(shop)
    mounted = "fs.viewfs.mounttable.default.link./landing folder"
    spark._jsc.hadoopConfiguration().set(mounted, f"file://{shop.landing}")
    try:
        assert shop.ingest(landing="viewfs:/landing folder") == ALL
    finally:
        spark._jsc.hadoopConfiguration().unset(mounted)
    assert {file for (file,) in shop.rows("events", "source_file")} == {"api/a.json", "pos/b.csv.gz", "web/c.log"}
    assert ("a", "Cup") in shop.rows("items", "item_id", "title")


@pytest.mark.parametrize(
    ("same_id_days", "kept", "reasons"),
    [(None, ["a"], ["id_of_another_event"] * 2), (3, ["a", "c"], ["id_of_another_event"]), (2, ["a", "b", "c"], [])],
)
def test_an_id_is_looked_up_in_the_days_around_the_batch(shop, same_id_days, kept, reasons):
    site = shop(ingest={"same_id_days": same_id_days})
    for item, day in (("a", 1), ("b", 4), ("c", 9)):
        site.put(f"api/{item}.json", event("u", item, event_id="1", timestamp=f"2024-05-{day:02d}T23:00:00Z"))
        site.ingest()
    site.put("api/again.json", event("u", "a", event_id="1", timestamp="2024-05-01T10:00:00Z"))
    assert site.ingest()["rows_duplicate"] == 1
    assert [item for (item,) in site.rows("events", "item_id")] == kept
    assert site.reasons() == reasons


@pytest.mark.parametrize("few", [MAX_COLLECTED_ROWS, 0])
def test_a_repeated_event_is_a_duplicate_and_a_reused_event_id_is_quarantined(shop, monkeypatch, few):
    monkeypatch.setattr(verdicts, "MAX_COLLECTED_ROWS", few)
    shop = shop()
    shop.put("api/a.json", event("u1", "a"), event("u1", "b", event_id="x"))
    shop.ingest()
    moved = json.dumps({**json.loads(event("u1", "b", event_id="x")), "timestamp": "2024-06-09T00:00:00Z"})
    shop.put("api/again.json", event("u1", "a"), moved, event("u1", "c"))
    closing = shop.ingest()
    assert (closing["rows_events"], closing["rows_duplicate"]) == (1, 2)
    shop.put("api/other.json", event("u2", "b", event_id="x"))  # from a source that has its own event ids
    assert shop.ingest()["rows_quarantined"] == 1
    assert shop.reasons() == ["id_of_another_event"]
    so_far = Warehouse(shop.spark, str(shop.root / "warehouse")).last_note("events", "ingest_events")["so_far"]
    assert {name: so_far[name] for name in ("rows_in", "rows_events", "rows_quarantined", "rows_duplicate")} == {
        "rows_in": 6, "rows_events": 3, "rows_quarantined": 1, "rows_duplicate": 2
    }  # fmt: skip


@pytest.mark.parametrize("instant", ["after_plan", "after_quarantine", "after_items", "after_events"])
def test_a_killed_batch_is_completed_by_the_next_run(shop, instant):
    shop = shop()
    fill(shop)
    with pytest.raises(Killed):
        shop.ingest(kill_at=f"ingest_events:{instant}")
    shop.put("api/late.json", event("u9", "n"))
    closing = shop.ingest()
    assert closing["rows_events"] == (1 if instant == "after_events" else 5)
    assert closing["rows_in"] == (1 if instant == "after_events" else 15)
    assert len(shop.rows("events")) == 5
    assert shop.reasons() == sorted([*REASONS, "repeated_header"])
    assert len(shop.rows("items")) == 6
    assert [batch for (batch,) in shop.rows("ingest_files", "batch")] == [1, 1, 1, 1, 2]
    assert len(set(shop.rows("events", "event_id"))) == 5


def test_a_batch_without_any_event_is_completed(shop):
    shop = shop()
    shop.put("api/a.json", "{broken")
    assert shop.ingest()["batches"] == 1
    assert shop.ingest()["batches"] == 0


def test_a_damaged_file_does_not_affect_other_files(shop):
    shop = shop()
    whole = shop.put("api/cut.json.gz", *(event(f"u{i}", f"i{i * 7919}", i % 3000) for i in range(3000)))
    whole.write_bytes(whole.read_bytes()[:-2000])
    (shop.landing / "api/none.json.gz").write_text("no gzip at all")
    shop.put("pos/none.csv.gz").write_text("no gzip at all")
    (shop.landing / "api/none.json.deflate").write_text("no deflate at all")
    (shop.landing / "pos/none.csv.deflate").write_text("no deflate at all")
    shop.put("api/good.json", event("good", "a"))
    closing = shop.ingest()
    assert shop.rows("quarantine", "reason", "raw") == [
        ("unreadable_file", "api/none.json.deflate"),
        ("unreadable_file", "pos/none.csv.deflate"),
        ("unreadable_gzip", "api/cut.json.gz"),
        ("unreadable_gzip", "api/none.json.gz"),
        ("unreadable_gzip", "pos/none.csv.gz"),
    ]
    assert closing["rows_in"] == closing["rows_events"] + 5
    assert ("good",) in shop.rows("events", "user_id")
    assert 1 < closing["rows_events"] < 3001


@pytest.mark.parametrize("packed", ["", ".gz", ".bz2"])
def test_blank_lines_before_a_header_are_counted_and_the_header_is_found(shop, packed):
    shop = shop()
    shop.put(f"pos/a.csv{packed}", "", "\ufeff \t\r", "who,item_id,timestamp\r", "u1,a,2024-05-01\r")
    shop.put(f"goods/a.csv{packed}", "", "item_id,title", "b,Bowl")
    shop.put(f"goods/b.json{packed}", "", '{"item_id": "c"}')
    shop.put(f"pos/blank.csv{packed}", "", " ")
    shop.put(f"goods/blank.csv{packed}", "")
    closing = shop.ingest()
    assert {name: closing[name] for name in ("rows_in", "rows_events", "rows_quarantined", "rows_catalog", "files")} == {
        "rows_in": 5, "rows_events": 1, "rows_quarantined": 4, "rows_catalog": 2, "files": 5
    }  # fmt: skip
    assert shop.reasons() == ["empty_line"] * 7
    assert shop.rows("items", "item_id", "title") == [("a", None), ("b", "Bowl"), ("c", None)]


@pytest.mark.parametrize(
    "change", [{"max_value": 3.0}, {"sources": [{**source, "glob": source["glob"] + ".gz"} for source in SOURCES]}]
)
def test_a_killed_batch_is_not_repeated_with_settings_under_which_a_line_could_be_lost(shop, change):
    shop = shop()
    shop.put("api/a.json", event("u1", "a", value=5), "{broken")
    shop.put("pos/x.csv", "who,item_id,timestamp", "u3,c,2024-05-01")
    with pytest.raises(Killed):
        shop.ingest(kill_at="ingest_events:after_quarantine")
    shop.put("api/late.json", event("u9", "n"))
    shop.sections = {"ingest": change}
    with pytest.raises(HeadwaterError, match="batch 1 of an earlier run is unfinished, and the section ingest or "):
        shop.ingest()
    assert shop.rows("events") == []
    shop.sections = {}
    closing = shop.ingest()
    assert (closing["rows_events"], closing["rows_quarantined"], closing["batches"]) == (3, 1, 2)
    assert shop.rows("ingest_files", "path", "batch") == [("api/a.json", 1), ("api/late.json", 2), ("pos/x.csv", 1)]
    shop.sections = {"ingest": change}  # once the batch is complete, settings may change
    assert shop.ingest()["batches"] == 0


def test_a_killed_batch_waits_for_a_file_that_no_longer_fits_its_source(shop):
    shop = shop()
    shop.put("pos/x.csv", good := "who,item_id,timestamp", "u3,c,2024-05-01")
    with pytest.raises(Killed):
        shop.ingest(kill_at="ingest_events:after_quarantine")
    file = shop.put("pos/x.csv", "item_id,timestamp", "c,2024-05-01")
    with pytest.raises(HeadwaterError, match=r"pos/x.csv has no column 'who', which ingest.sources names for user_id"):
        shop.ingest()
    file.write_text(f"{good}\nu3,c,2024-05-01\n")
    assert (shop.ingest()["rows_events"], shop.rows("events", "user_id")) == (1, [("u3",)])


def test_with_a_privacy_key_no_table_contains_a_user_id(shop, tmp_path):
    (tmp_path / "key").write_text("secret\n")
    shop = shop(privacy={"key_file": str(tmp_path / "key")})
    shop.put(
        "api/a.json", event("anna", "a", session_id="anna-1", event_id="order-anna-7"), '{"user_id": "anna", "broken"'
    )
    shop.put("web/c.log", request("/p/d"))
    shop.ingest()
    known = [pseudonym("anna", b"secret"), pseudonym(f"10.0.0.1\x1f{AGENT}", b"secret")]
    assert sorted(user for (user,) in shop.rows("events", "user_id")) == sorted(known)
    tables = repr([shop.rows(table) for table in ("events", "quarantine", "items")])
    assert "anna" not in tables
    assert "10.0.0.1" not in tables
    assert shop.rows("quarantine", "raw")[0][0].startswith("[redacted] ")


@pytest.mark.parametrize("instant", ["judged", "ingest_events:after_plan", "ingest_events:after_items"])
def test_a_concurrent_ingest_without_locks_doubles_and_loses_nothing(shop, instant):
    site = shop()
    site.put("api/a.json", event("u1", "a"), event("u2", "b", 1), "{broken")
    site.put("goods/a.csv", "item_id,title", "c,Cup")
    other = []

    def meanwhile():
        site.put("api/later.json", event("u3", "c", 2), "{broken too")
        other.append(site.ingest(locks=False))

    first = site.ingest(meanwhile={instant: meanwhile}, locks=False)
    assert other[0]["rows_in"] == 5
    assert first["rows_in"] == (0 if instant == "judged" else 3)
    assert site.rows("events", "user_id", "item_id") == [("u1", "a"), ("u2", "b"), ("u3", "c")]
    assert site.rows("quarantine", "raw") == [("{broken too",), ("{broken",)]
    assert site.rows("items", "item_id", "item_idx") == [("a", 1), ("b", 2), ("c", 3)]
    assert len(site.rows("ingest_files", "path")) == 3
    site.put("api/last.json", event("u4", "a", 3))
    assert site.ingest()["rows_events"] == 1


def test_a_ledger_restored_after_a_killed_batch_does_not_block_the_next_batch(shop):
    site = shop()
    site.put("api/a.json", event("u1", "a"))
    site.ingest()
    site.put("api/b.json", event("u2", "b", 1))
    with pytest.raises(Killed):
        site.ingest(kill_at="ingest_events:after_plan")
    ledger = f"delta.`{site.root}/warehouse/ingest_files`"
    before = Warehouse(site.spark, f"{site.root}/warehouse").version("ingest_files") - 1
    site.spark.sql(f"RESTORE TABLE {ledger} TO VERSION AS OF {before}")
    assert site.ingest()["rows_events"] == 1
    assert site.rows("ingest_files", "path", "batch") == [("api/a.json", 1), ("api/b.json", 3)]
