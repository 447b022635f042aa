"""The whole ingest job on hand-made landing folders, in one process; a fail-point raises in place of a kill."""

import bz2
import gzip
import json
import os
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from headwater.config import Config
from headwater.errors import HeadwaterError, UsageError
from headwater.frames import MAX_COLLECTED_ROWS
from headwater.ingest import files, reading, verdicts
from headwater.job import Job
from headwater.nearline import events
from headwater.privacy import pseudonym
from headwater.tables import Warehouse

AGENT = "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"
SOURCES = [
    {"format": "json", "glob": "api/*"},
    {"format": "csv", "glob": "pos/*", "fields": {"user_id": "who"}, "constants": {"event_type": "purchase"}},
    {"format": "combined_log", "glob": "web/*"},
    {"format": "catalog", "glob": "goods/*"},
]
RULES = [{"event_type": "view", "path": r"^/p/(?P<item_id>[^/?]+)"}]


class Killed(BaseException):
    """Stands for SIGKILL: a BaseException, so that no handler of ours catches it."""


class Shop:
    """A landing folder and a warehouse, used in the tests' Spark session."""

    def __init__(self, spark, root, **sections):
        self.spark, self.root = spark, root
        self.landing = root / "landing"
        self.landing.mkdir()
        self.sections = sections

    def put(self, path, *lines):
        file = self.landing / path
        file.parent.mkdir(exist_ok=True)
        data = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
        pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(file.suffix, bytes)
        file.write_bytes(pack(data))
        return file

    def job(self, landing=""):
        paths = {"landing": landing or str(self.landing), "warehouse": str(self.root / "warehouse")}
        ingest = {"sources": SOURCES, "url_rules": RULES, **self.sections.get("ingest", {})}
        job = Job("ingest_events", Config(**{"paths": paths, **self.sections, "ingest": ingest}))
        job.__dict__["spark"] = self.spark
        return job

    def ingest(self, kill_at="", landing="", meanwhile=None, locks=True):
        """Run the job. ``meanwhile``: functions to call at named instants; ``locks=False``: as on non-local storage."""
        job = self.job(landing)
        job.warehouse.is_local = locks
        happens = dict(meanwhile or {})

        def failpoint(name):
            if name == kill_at:
                raise Killed(name)
            happens.pop(name, lambda: None)()

        @contextmanager
        def judge(*batch):
            with verdicts.judge(*batch) as read:
                happens.pop("judged", lambda: None)()
                yield read

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(events, "failpoint", failpoint)
            patch.setattr(events, "judge", judge)
            return events.ingest(job)

    def rows(self, table, *columns):
        frame = Warehouse(self.spark, str(self.root / "warehouse")).read(table).select(*columns)
        return sorted((tuple(row) for row in frame.collect()), key=repr)

    def reasons(self):
        return [reason for (reason,) in self.rows("quarantine", "reason")]


@pytest.fixture
def shop(spark, tmp_path):
    return lambda **sections: Shop(spark, tmp_path, **sections)


def event(user, item, at=0, **more):
    moment = f"2024-05-01T10:{at // 60:02d}:{at % 60:02d}Z"
    return json.dumps({"user_id": user, "item_id": item, "event_type": "view", "timestamp": moment, **more})


def request(target, status=200, agent=AGENT, address="10.0.0.1"):
    return f'{address} - - [01/May/2024:10:05:03 +0000] "GET {target} HTTP/1.1" {status} 512 "-" "{agent}"'


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


@pytest.mark.parametrize(
    ("path", "lines", "error", "named"),
    [
        ("pos/x.csv", ["name,item_id", "u,a"], UsageError, "x.csv has no column 'who'"),
        (
            "pos/x.csv",
            ["who,item_id", "u,a"],
            UsageError,
            "x.csv has no column 'timestamp', and ingest.sources gives no other name .*; the columns are 'who', 'item_id'",
        ),
        (
            "pos/x.csv",
            ["ann@example.com,c,2024-05-01"],
            UsageError,
            "for user_id; its first line names no column at all",
        ),
        ("pos/x.csv", ["who,item_id,who,timestamp", "a,b,c,2024"], UsageError, "x.csv has several columns 'who'; the"),
        ("goods/x.csv", ["title", "Cup"], HeadwaterError, "x.csv has no column 'item_id'"),
        ("goods/x.csv", ["item_id\rA"], HeadwaterError, "the first line of goods/x.csv is not a valid CSV header"),
        ("goods/x.json", ["[", '{"item_id": "a"}', "]"], HeadwaterError, "x.json is one JSON array"),
        ("goods/x.json", ['{"title": "Cup"}'], HeadwaterError, "x.json has no row with an item_id"),
    ],
)
def test_a_file_that_does_not_match_its_source_is_left_alone_and_fails_the_run_at_its_end(
    shop, path, lines, error, named
):
    shop = shop()
    shop.put("api/a.json", event("u1", "a"), "{broken")
    shop.put("goods/z.json", '{"item_id": "z"}', '{"title": "Cup"}')
    shop.put(path, *lines)
    with pytest.raises(error, match=rf"{named}.* \(left alone; all other files were ingested\)") as told:
        shop.ingest()
    assert told.value.exit_code == error.exit_code
    assert shop.rows("ingest_files", "path", "batch") == [("api/a.json", 1), ("goods/z.json", 1)]
    assert shop.rows("events", "user_id", "item_id") == [("u1", "a")]
    assert shop.rows("items", "item_id") == [("a",), ("z",)]
    assert sorted(shop.rows("quarantine", "source_file", "reason")) == [
        ("api/a.json", "malformed_json"),
        ("goods/z.json", "missing_item_id"),
    ]


@pytest.mark.parametrize("path", ["api/x.json", "api/x.json.gz", "pos/x.csv", "goods/x.csv"])
def test_an_unreadable_file_is_left_alone_and_ingested_once_it_can_be_read(shop, path):
    shop = shop()
    shop.put("api/a.json", event("u1", "a"))
    file = shop.put(path, *{"api": [event("u2", "b")], "pos": ["who,item_id,timestamp", "u2,b,2024-05-01"],
                            "goods": ["item_id", "b"]}[path[: path.index("/")]])  # fmt: skip
    good = file.rename(shop.root / "good")
    file.symlink_to("/proc/self/mem")  # reading its first byte is an I/O error
    with pytest.raises(HeadwaterError, match=rf"{path} cannot be read: Input/output error \(left alone; all other"):
        shop.ingest()
    assert shop.rows("ingest_files", "path") == [("api/a.json",)]
    assert shop.reasons() == []
    good.rename(file)
    assert shop.ingest()["files"] == 1
    assert shop.rows("items", "item_id") == [("a",), ("b",)]


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


@pytest.mark.parametrize("path", ["pos/x.csv", "pos/x.csv.gz", "api/x.json", "api/x.json.bz2"])
@pytest.mark.parametrize("then", ["found", "tried"])
def test_a_file_that_vanishes_before_it_is_read_is_not_ingested(shop, monkeypatch, path, then):
    shop = shop()
    shop.put("api/a.json", event("u1", "a"))
    gone = shop.put(path, "who,item_id,timestamp", "u2,b,2024-05-01")
    module, name = {"found": (files, "find"), "tried": (reading, "damaged")}[then]
    step = getattr(module, name)

    def step_then_gone(*args):
        result = step(*args)
        gone.unlink(missing_ok=True)
        return result

    monkeypatch.setattr(module, name, step_then_gone)
    with pytest.raises(HeadwaterError, match=f"{path} cannot be read: "):
        shop.ingest()
    assert shop.rows("ingest_files", "path") == [("api/a.json",)]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (b"api/caf\xe9.json", r"the name of api/caf\\xe9\.json is not UTF-8; rename the file \(left alone"),
        (b"api/12:00.json", r"the name of api/12:00\.json has a colon, and Spark reads no such file; rename it \(left"),
    ],
)
def test_a_file_whose_name_spark_cannot_read_is_left_alone(shop, path, line):
    shop = shop()
    shop.put("api/a.json", event("u1", "a"))
    shop.put(os.fsdecode(path), event("u2", "b"))
    with pytest.raises(HeadwaterError, match=line):
        shop.ingest()
    assert shop.rows("ingest_files", "path") == [("api/a.json",)]


def test_a_file_name_that_looks_like_a_glob_is_a_name(shop):
    shop = shop()
    names = ["plain", "b[1]", "c?", "d{1,2}", "e*", "f\\x"]
    for number, name in enumerate(names):
        shop.put(f"api/{name}.json", event("u1", f"i{number}"), "{broken")
    shop.put("pos/a[b].csv", "who,item_id,timestamp", "u3,c,2024-05-01")
    closing = shop.ingest()
    assert (closing["rows_events"], closing["rows_quarantined"], closing["rows_duplicate"]) == (7, 6, 0)
    assert shop.rows("quarantine", "source_file") == sorted((f"api/{name}.json",) for name in names)


def test_a_stream_warns_of_each_file_once(shop):
    shop = shop(ingest={"sources": [*SOURCES, {"format": "csv", "glob": "api/b*"}]})
    shop.put("api/a.json", event("u1", "a"))
    shop.put("api/b.json", event("u1", "b"))
    (shop.landing / "api/c.json").symlink_to("/proc/self/mem")
    job = shop.job()
    intake = events.Intake(job)
    with capture_logs() as said:
        for look in range(4):
            if look == 1:
                shop.put("api/a.json", event("u1", "a"), "")
            if look == 2:
                shop.put("api/b.json", event("u1", "b"), "")
            intake.take_new(job)
    warnings = [(line["event"], line.get("files") or line["file"]) for line in said if line["log_level"] == "warning"]
    assert warnings == [
        ("several sources match a file; the first one gets it", ["api/b.json"]),
        ("a file is left alone", "api/c.json"),
        ("files changed after they were ingested; they are not read again", ["api/a.json"]),
        ("files changed after they were ingested; they are not read again", ["api/b.json"]),
    ]


def test_if_no_new_file_matches_its_source_nothing_is_written_and_the_error_counts_them(shop):
    shop = shop()
    shop.put("goods/x.json", '{"title": "Cup"}')
    shop.put("pos/x.csv", "name,item_id", "u,a")
    shop.put("pos/y.csv", "name,item_id", "u,b")
    for _ in range(2):
        with (
            capture_logs() as said,
            pytest.raises(UsageError, match=r"pos/x.csv .* \(left alone, and 2 more like it; "),
        ):
            shop.ingest()
        refused = [line["file"] for line in said if line["event"] == "a file is left alone"]
        assert refused == ["pos/x.csv", "pos/y.csv", "goods/x.json"]
    assert [shop.rows(table) for table in ("events", "quarantine", "items", "ingest_files")] == [[], [], [], []]
    warehouse = Warehouse(shop.spark, str(shop.root / "warehouse"))
    assert [warehouse.version(table) for table in ("events", "quarantine", "items", "ingest_files")] == [0, 0, 0, 0]


def test_a_refused_file_is_ingested_once_it_has_been_replaced(shop):
    shop = shop()
    shop.put("api/a.json", event("u1", "a"))
    shop.put("pos/x.csv", "name,item_id,timestamp", "u3,c,2024-05-01")
    with pytest.raises(UsageError, match="no column 'who'"):
        shop.ingest()
    shop.put("pos/x.csv", "who,item_id,timestamp", "u3,c,2024-05-01")
    closing = shop.ingest()
    assert {name: closing[name] for name in ("rows_in", "rows_events", "files", "batches")} == {
        "rows_in": 1, "rows_events": 1, "files": 1, "batches": 1
    }  # fmt: skip
    assert shop.rows("ingest_files", "path", "batch") == [("api/a.json", 1), ("pos/x.csv", 2)]
    assert shop.rows("events", "user_id") == [("u1",), ("u3",)]


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
