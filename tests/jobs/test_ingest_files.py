"""Files that ingest leaves alone, and what it says of them; all other files are ingested."""

import json
import os
import re

import pytest
from landing import SOURCES, Shop, event
from structlog.testing import capture_logs

from headwater.errors import HeadwaterError, UsageError
from headwater.ingest import files, reading
from headwater.nearline import events
from headwater.tables import Warehouse


@pytest.fixture
def shop(spark, tmp_path):
    return lambda **sections: Shop(spark, tmp_path, **sections)


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


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"user_id": "learnr"},
            "has 'learnr', which ingest.sources reads as user_id; the keys are 'event_type', 'item_id', ",
        ),
        ({"timestamp": "context.at"}, "has 'context.at', which ingest.sources reads as timestamp; the keys are "),
    ],
)
def test_a_json_file_without_a_required_field_is_left_alone(shop, fields, line):
    wrong = {**SOURCES[0], "fields": fields}
    site = shop(ingest={"sources": [wrong, *SOURCES[1:]]})
    site.put("api/x.json.gz", "", *(event(f"u{k}", "a") for k in range(10)))
    site.put("api/few.json", *(event(f"u{k}", "a") for k in range(9)))  # too few to tell
    with pytest.raises(UsageError, match=f"none of the first 10 lines of api/x.json.gz {line}"):
        site.ingest()
    assert site.rows("ingest_files", "path") == [("api/few.json",)]
    site.sections = {}
    assert site.ingest()["rows_events"] == 10


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (
            [f"[{event('u1', 'a')}, {event('u2', 'b')}]"],
            "api/x.json is one JSON array; format json reads one object per line",
        ),
        (["[", f"  {event('u1', 'a')[:-1]}", "  }", "]"], "api/x.json is one JSON array"),
        (
            ["user_id,item_id", *(f"u{k},a" for k in range(9))],
            "none of the first 10 lines of api/x.json is a JSON object",
        ),
    ],
)
def test_a_file_of_another_format_than_json_lines_is_left_alone(shop, lines, line):
    site = shop()
    site.put("api/x.json", "", *lines)
    site.put("api/few.json", *(f"u{k},a" for k in range(9)))  # broken lines, as far as anybody can tell
    with pytest.raises(UsageError, match=line):
        site.ingest()
    assert site.rows("ingest_files", "path") == [("api/few.json",)]
    assert site.reasons() == ["malformed_json"] * 9


def test_json_lines_without_an_item_are_taken_only_for_searches(shop):
    site = shop(ingest={"sources": [{**SOURCES[0], "fields": {"item_id": "sku"}}, *SOURCES[1:]]})
    searches = [json.dumps({**json.loads(event(f"u{k}", "")), "event_type": "Search"}) for k in range(12)]
    without_item = [re.sub(r', "item_id": ""|"item_id": "", ', "", line) for line in searches]
    site.put("api/searches.json", *without_item, *(event(f"u{k}", "a") for k in range(9)))
    site.put("api/x.json", *without_item, *(event(f"u{k}", "a") for k in range(11)))
    line = "none of the first 11 lines with an event other than a search of api/x.json has 'sku', which ingest.sources reads"
    with pytest.raises(UsageError, match=line):
        site.ingest()
    assert site.rows("ingest_files", "path") == [("api/searches.json",)]


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
