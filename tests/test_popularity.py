"""Decayed popularity: an event counts half as much after each half-life."""

from datetime import UTC, datetime, timedelta

import pytest

from headwater import popularity, schemas

NOW = datetime(2025, 1, 31, 12)


def steps(spark, *rows):
    """(item_idx, days ago), ingested now"""
    full = [(item, NOW - timedelta(days=days), NOW) for item, days in rows]
    return spark.createDataFrame(full, "item_idx int, event_time timestamp, ingested_at timestamp")


def test_an_event_counts_half_after_each_half_life_and_nothing_when_it_is_old(spark):
    happened = steps(spark, (1, 0), (1, 7), (2, 14), (3, 7 * popularity.HALF_LIVES), (9, 0))
    counts = popularity.decayed_counts(happened, 4, 7)
    assert counts.tolist() == pytest.approx([0, 1 + 1 / 2, 1 / 4, 0, 0])


def test_an_event_from_a_client_with_a_fast_clock_does_not_make_the_others_old(spark):
    happened = steps(spark, (1, 0), (2, 0.5), (3, -1))
    assert popularity.decayed_counts(happened, 3, 0.5).tolist() == pytest.approx([0, 1, 1 / 2, 1])


def test_without_events_the_count_of_every_item_is_zero(spark):
    assert popularity.decayed_counts(steps(spark), 2, 7).tolist() == [0, 0, 0]


def test_popularity_is_counted_up_to_the_newest_event_that_is_not_an_impression(spark):
    rows = [
        (str(day), "u", "a", kind, NOW - timedelta(days=day), *[None] * 3, "", "", NOW, NOW.date())
        for day, kind in ((0, "impression"), (1, "view"), (2, "view"))
    ]
    items = spark.createDataFrame([("a", 1)], "item_id string, item_idx int")
    counts, until = popularity.of_items(spark.createDataFrame(rows, schemas.ddl("events")), items, 1)
    assert (counts.tolist(), until) == ([0, 1.5], (NOW - timedelta(days=1)).replace(tzinfo=UTC).timestamp())


def test_only_the_days_that_still_count_are_read(spark):
    days = [NOW - timedelta(days=days) for days in (0, 10, 11)]
    rows = [(str(day), "u", "a", "view", day, *[None] * 3, "", "", NOW, day.date()) for day in days]
    events = spark.createDataFrame(rows, schemas.ddl("events"))
    assert popularity.newest_days(events, 1).count() == 2
    assert popularity.newest_days(events.limit(0), 1).count() == 0
