"""Recent popularity: whole days before the newest event, every available item in a fixed order."""

from datetime import date

from headwater import popularity


def test_recent_events_count_and_the_rest_follows_in_order(spark):
    events = spark.createDataFrame(
        [
            ("a", "view", date(2025, 1, 1)),
            ("b", "click", date(2025, 1, 9)),
            ("b", "view", date(2025, 1, 8)),
            ("c", "view", date(2025, 1, 9)),
            ("c", "impression", date(2025, 1, 9)),
            (None, "search", date(2025, 1, 9)),
        ],
        "item_id string, event_type string, event_date date",
    )
    items = spark.createDataFrame(
        [("a", 1, True), ("b", 2, True), ("c", 3, True), ("d", 4, True), ("sold out", 5, False)],
        "item_id string, item_idx int, available boolean",
    )
    ranked = [tuple(row) for row in popularity.recent(events, items, 7).collect()]
    assert ranked == [(2, 2), (3, 1), (1, 0), (4, 0)]


def test_without_events_all_items_have_zero(spark):
    events = spark.createDataFrame([], "item_id string, event_type string, event_date date")
    items = spark.createDataFrame([("a", 1, True)], "item_id string, item_idx int, available boolean")
    assert [tuple(row) for row in popularity.recent(events, items, 7).collect()] == [(1, 0)]
