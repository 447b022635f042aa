from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pyspark.sql import functions as F

from headwater.config import Ingest, Source
from headwater.errors import UsageError
from headwater.ingest import bots, catalogue, duplicates, judging, times
from headwater.ingest.files import LandingFile
from headwater.privacy import load_key, pseudonym, with_pseudonyms

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
GOOD = {
    "reason": None, "ignored": False, "visitor": None, "user_id": "u", "item_id": "i", "event_type": "view",
    "timestamp": "x", "event_time": NOW, "event_id": None, "value": None, "query": None, "session_id": None,
}  # fmt: skip
SCHEMA = (
    "reason string, ignored boolean, visitor string, user_id string, item_id string, event_type string, "
    "timestamp string, event_time timestamp, event_id string, value string, query string, session_id string"
)


def judged(spark, *changes):
    rows = [tuple({**GOOD, **change}.values()) for change in changes]
    frame = spark.createDataFrame(rows, SCHEMA).coalesce(1)
    return judging.with_reason(frame, judging.limits(Ingest(), NOW))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"user_id": None}, "missing_user_id"),
        ({"user_id": None, "visitor": "10.0.0.1\x1fagent"}, None),
        ({"event_type": "teleport"}, "unknown_event_type"),
        ({"event_type": None}, "unknown_event_type"),
        ({"item_id": None}, "missing_item_id"),
        ({"item_id": None, "event_type": "search"}, None),
        ({"item_id": "i" * 513}, "id_too_long"),
        ({"user_id": "a\x00b"}, "bad_id"),
        ({"timestamp": None, "event_time": None}, "missing_timestamp"),
        ({"event_time": None}, "bad_timestamp"),
        ({"event_time": datetime(1994, 12, 31, tzinfo=UTC)}, "time_too_old"),
        ({"event_time": NOW + timedelta(hours=23)}, None),
        ({"event_time": NOW + timedelta(hours=25)}, "time_in_future"),
        ({"value": "many"}, "bad_value"),
        ({"value": "NaN"}, "bad_value"),
        ({"value": "1e999"}, "bad_value"),
        ({"value": "1d"}, "bad_value"),
        ({"value": "-1000001"}, "value_outlier"),
        ({"value": "-1"}, None),
        ({"value": "-1", "event_type": "purchase"}, "negative_value"),
        ({"reason": "malformed_csv", "user_id": None}, "malformed_csv"),
        ({"ignored": True, "user_id": None}, None),
    ],
)
def test_a_line_gets_its_quarantine_reason(spark, change, reason):
    assert judged(spark, change).first()["reason"] == reason


def test_the_batches_of_an_hour_have_the_same_limits():
    early, late, next_hour = (
        judging.limits(Ingest(), NOW + timedelta(minutes=minutes)) for minutes in (1, 59.99, 60.01)
    )
    assert early == late != next_hour
    assert early.latest == NOW + timedelta(hours=25)


def test_event_types_are_renamed_regardless_of_case(spark):
    frame = spark.createDataFrame([("CART",), ("View",), ("cartoon",), ("Ping",), (None,)], "event_type string")
    source = Source(format="csv", glob="*", event_types={"Cart": "add_to_cart", "ping": None})
    rows = judging.with_event_type(frame, source).collect()
    assert [(row["event_type"], row["ignored"]) for row in rows] == [
        ("add_to_cart", False), ("view", False), ("cartoon", False), (None, True), (None, False)
    ]  # fmt: skip


def test_a_generated_event_id_depends_on_all_content_and_on_nothing_else(spark):
    same, other = {"value": "2"}, {"value": "2.0"}
    frame = judged(
        spark, same, other, {"value": "3"}, {"user_id": "ui", "item_id": "x"}, {"user_id": "u", "item_id": "ix"},
        {"event_id": "mine"},
    )  # fmt: skip
    rows = judging.with_event_id(frame).collect()
    ids = [row["event_id"] for row in rows]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 5
    assert len(ids[0]) == 32
    assert [row["id_given"] for row in rows] == [False] * 5 + [True]


def test_crawlers_are_recognised_by_agent_and_a_cubot_phone_is_not_one():
    google = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
    cubot = "Mozilla/5.0 (Linux; Android 9; CUBOT_X18_Plus) AppleWebKit/537.36 Chrome/80.0 Mobile Safari/537.36"
    cubot_note = cubot.replace("CUBOT_X18_Plus", "Cubot Note 20")
    assert bots.crawlers([google, cubot, cubot_note, "-", ""]) == [google]


def events(spark, *rows):
    return spark.createDataFrame(
        [(user, kind, NOW + timedelta(seconds=at), f"e{i}") for i, (user, kind, at) in enumerate(rows)],
        "user_id string, event_type string, event_time timestamp, event_id string",
    )


def test_too_fast_or_too_regular_browsing_marks_a_bot_and_a_basket_does_not(spark):
    frame = events(
        spark,
        *[("fast", "view", 1 + at % 7) for at in range(11)],
        *[("steady", "click", 61 * at) for at in range(6)],
        *[("person", "view", 61 * at + at % 2) for at in range(6)],
        *[("basket", "purchase", 1) for _ in range(50)],
        *[("rater", "rating", 61 * at) for at in range(50)],
        *[("scroller", "impression", 1 + at % 2) for at in range(50)],
        *[("instant", "view", 1) for _ in range(8)],
    )
    rows = bots.behaviour(frame, events_per_minute=10, regular_events=6).collect()
    assert sorted(map(tuple, rows)) == [("fast", "bot_rate"), ("steady", "bot_regular")]


def test_the_first_line_of_an_event_counts_and_stored_events_are_recognised(spark):
    said = "user_id string, item_id string, event_type string"
    frame = spark.createDataFrame(
        [
            ("a", "f2", (0, 1), "u", "i", "view"),
            ("a", "f1", (0, 9), "u", "i", "view"),
            ("a", "f1", (0, 2), "u", "i", "view"),
            ("b", "f1", (0, 1), "u", None, "search"),
            ("b", "f1", (0, 3), "v", None, "search"),  # equal to the stored event, not to the first line
            ("c", "f1", (0, 1), "u", "j", "view"),
            ("d", "f1", (0, 1), "u", "i", "view"),
            ("d", "f1", (0, 2), "u", "i", "click"),
        ],
        f"event_id string, source_file string, position struct<block: bigint, line: bigint>, {said}",
    )
    stored = spark.createDataFrame(
        [("b", "v", None, "search"), ("c", "u", "j", "view"), ("c", "u", "j", "view"), ("z", "u", "i", "view")],
        f"event_id string, {said}",
    )
    rows = duplicates.with_stored(duplicates.with_copy(frame), stored).collect()
    found = {
        (r["event_id"], r["source_file"], r["position"]["line"]): (r["copy"], r["stored"], r["another"]) for r in rows
    }
    assert found == {
        ("a", "f1", 2): (1, False, False),
        ("a", "f1", 9): (2, False, False),
        ("a", "f2", 1): (3, False, False),
        ("b", "f1", 1): (1, True, True),
        ("b", "f1", 3): (2, True, False),
        ("c", "f1", 1): (1, True, False),
        ("d", "f1", 1): (1, False, False),
        ("d", "f1", 2): (2, False, True),
    }


def goods(spark, *rows, published=None):
    schema = (
        "reason string, source_file string, position struct<block: bigint, line: bigint>, item_id string, "
        "title string, category string, text string, price string, available string, published timestamp"
    )
    return spark.createDataFrame([(None, f, (0, n), *rest, published) for n, (f, *rest) in enumerate(rows)], schema)


def test_the_last_value_of_an_item_wins_and_an_invalid_price_is_null(spark):
    rows = goods(
        spark,
        ("b.csv", "x", "new", None, None, "2.5", "no"),
        ("a.csv", "x", "old", "mugs", None, "1", "yes"),
        ("a.csv", "y", "why", None, None, "cheap", None),
        ("a.csv", None, "?", None, None, None, None),
    )
    typed = catalogue.with_reason(rows, 512)
    assert [row["reason"] for row in typed.where("reason IS NOT NULL").collect()] == ["missing_item_id"]
    files = [LandingFile(name, name, 1, NOW, Source(format="catalog", glob="*")) for name in ("a.csv", "b.csv")]
    latest = catalogue.latest(typed.where("reason IS NULL"), files).orderBy("item_id").collect()
    assert [tuple(row) for row in latest] == [
        ("x", "new", "mugs", None, 2.5, False, None),
        ("y", "why", None, None, None, None, None),
    ]
    files[0] = replace(files[0], modified_at=NOW + timedelta(seconds=1))  # the newer file wins, whatever its name
    assert catalogue.latest(typed.where("reason IS NULL"), files).where("item_id = 'x'").first()["title"] == "old"


def test_a_price_is_an_amount_with_or_without_a_currency(spark):
    said = {
        "2.5": 2.5, "1e3": 1000.0, ".5": 0.5, "10,50": 10.5, "1.299,00": 1299.0, "1,299.00": 1299.0, "1,299": 1299.0,
        "€ 12.00": 12.0, "12,5 EUR": 12.5, "$3": 3.0, "0": 0.0, "-5": None, "cheap": None, "NaN": None, "1e999": None,
        "1,2,3": None, "": None, "12.5.6": None, "1 234,50 €": 1234.5, "1\u00a0234,50\u00a0€": 1234.5,
        "1\u202f234\u202f567": 1234567.0, "CHF 1'234.50": 1234.5, "12’000.–": 12000.0, "Rs. 500": 500.0, "Rs.1,500": 1500.0,
        "kr. 99": 99.0, "99 kr.": 99.0, "99,-": 99.0, "1.234.567": 1234567.0, "1.234.567,89": 1234567.89, "1.234": 1.234,
        "0,125": 0.125, "EUR 0,250": 0.25, "0.125.000": None, "0,125,000": None, "0 125": None, "10,125": 10125.0,
        "$.50": 0.5, "1 2 3": None, "1 234 56": None, "1 234'567": None, "Rs. -5": None, "3 for 5": None,
        "1" + "x" * 500_000 + "1": None,
    }  # fmt: skip
    rows = goods(spark, *(("f", str(n), None, None, None, price, None) for n, price in enumerate(said)))
    assert [row["price"] for row in catalogue.with_reason(rows, 512).orderBy("position").collect()] == list(
        said.values()
    )


def test_availability_is_read_from_a_word_or_stock_number_and_titles_become_one_line(spark):
    said = ("yes", "FALSE", "1", "0", "17", "-2", "0.0", "sold out", None)
    rows = goods(spark, *(("f", str(n), "a\r\n mug", "x\ny", None, None, word) for n, word in enumerate(said)))
    typed = catalogue.with_reason(rows, 512).orderBy("position").collect()
    assert [row["available"] for row in typed] == [True, False, True, False, True, False, False, None, None]
    assert [row["reason"] for row in typed] == [None] * 7 + ["bad_available", None]
    assert {(row["title"], row["category"]) for row in typed} == {("a mug", "x y")}


def test_new_items_get_the_next_numbers_and_known_items_keep_theirs(spark):
    from headwater import schemas

    items = spark.createDataFrame([("old", 7, "t", "c", None, 1.0, False, NOW)], schemas.ddl("items"))
    rows = goods(spark, ("f", "old", "T", None, None, None, None), ("f", "b", "B", None, None, None, None))
    file = LandingFile("f", "f", 1, NOW, Source(format="catalog", glob="*"))
    listed = catalogue.latest(catalogue.with_reason(rows, 512), [file])
    met = spark.createDataFrame(
        [("old", NOW), ("z", NOW - timedelta(1)), ("y", NOW), ("y", NOW), (None, NOW)],
        "item_id string, event_time timestamp",
    )
    names = ("item_id", "item_idx", "title", "category", "available", "first_seen")
    later, earlier = NOW + timedelta(2), NOW - timedelta(1)
    rows = catalogue.changed_items(items, listed, met, later).select(*names).orderBy("item_idx")
    assert [(*row[:5], row[5].replace(tzinfo=UTC)) for row in rows.collect()] == [
        ("old", 7, "T", "c", False, NOW),
        ("z", 8, None, None, True, earlier),
        ("y", 9, None, None, True, NOW),
        ("b", 10, "B", None, True, later),
    ]
    first = catalogue.changed_items(items.limit(0), listed, met, later).orderBy("item_idx").collect()
    assert [(row["item_id"], row["first_seen"].replace(tzinfo=UTC)) for row in first] == [
        ("z", earlier), ("old", NOW), ("y", NOW), ("b", earlier)
    ]  # fmt: skip


def test_the_time_of_publication_in_a_catalogue_is_when_an_item_was_first_seen(spark):
    from headwater import schemas

    items = spark.createDataFrame([("old", 7, "t", "c", None, 1.0, True, NOW)], schemas.ddl("items"))
    file = LandingFile("f", "f", 1, NOW, Source(format="catalog", glob="*"))
    met = spark.createDataFrame([("old", NOW), ("met", NOW)], "item_id string, event_time timestamp")

    def first_seen(published):
        rows = goods(
            spark, *(("f", name, "", None, None, None, None) for name in ("old", "met", "new")), published=published
        )
        listed = catalogue.latest(catalogue.with_reason(rows, 512), [file])
        changed = catalogue.changed_items(items, listed, met, NOW + timedelta(2)).orderBy("item_idx").collect()
        return [row["first_seen"].replace(tzinfo=UTC) for row in changed]

    assert first_seen(NOW - timedelta(400)) == [NOW - timedelta(400)] * 3
    assert first_seen(NOW + timedelta(400)) == [NOW + timedelta(2)] * 3, "not in the future"
    assert first_seen(None) == [NOW, NOW, NOW + timedelta(2)]


def test_publication_is_a_time_a_date_or_a_year_but_no_flag(spark):
    said = {
        "2026-11-29T06:30:00+01:00": "2026-11-29 05:30:00", "2019-03-01": "2019-03-01 00:00:00", "1931": "1931-01-01 00:00:00",
        "1764398400": "2025-11-29 06:40:00", "1": None, "0": None, "yes": None, "7": None, None: None,
    }  # fmt: skip
    rows = spark.createDataFrame([(n, text) for n, text in enumerate(said)], "n int, text string")
    found = rows.select("n", times.published(F.col("text"), Ingest().earliest).cast("string").alias("at")).orderBy("n")
    assert [row["at"] for row in found.collect()] == list(said.values())


@pytest.mark.parametrize("key", [b"secret", b"k" * 64, b"k" * 100])
def test_spark_and_python_give_the_same_pseudonym(spark, key):
    frame = spark.createDataFrame([("anna",), ("zoë",), ("",), (None,)], "user_id string").coalesce(1)
    hidden = with_pseudonyms(frame, key, {"user_id": lambda hashed: hashed(F.col("user_id"))})
    expected = [pseudonym("anna", key), pseudonym("zoë", key), pseudonym("", key), None]
    assert sorted((row["user_id"] for row in hidden.collect()), key=str) == sorted(expected, key=str)


def test_no_plan_shows_the_key(spark):
    frame = spark.createDataFrame([("anna",)], "user_id string")
    hidden = with_pseudonyms(frame, b"secret", {"user_id": lambda hashed: hashed(F.col("user_id"))})
    plan = hidden._jdf.queryExecution().toString()
    pads = [bytes(b ^ pad for b in b"secret".ljust(64, b"\0")) for pad in (0x36, 0x5C)]
    for shown in (b"secret", *pads):
        assert shown.decode("latin-1") not in plan
        assert shown.hex() not in plan.lower()


def test_a_key_file_must_hold_a_key(tmp_path):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "key").write_text("secret\n")
    assert (load_key(""), load_key(str(tmp_path / "key"))) == (None, b"secret")
    for name in ("empty", "missing"):
        with pytest.raises(UsageError, match="key_file"):
            load_key(str(tmp_path / name))
