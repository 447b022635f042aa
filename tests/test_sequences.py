"""Sequences: total order, late and duplicate events, the maximum length, seen items."""

from datetime import datetime, timedelta

from headwater import schemas, sequences

START = datetime(2025, 1, 1)


def steps(spark, *rows):
    full = [(user, START + timedelta(minutes=minute), event, item, "view", None) for user, minute, event, item in rows]
    ddl = "user_id string, event_time timestamp, event_id string, item_idx int, event_type string, value double"
    return spark.createDataFrame(full, ddl)


def no_sequences(spark):
    return spark.createDataFrame([], schemas.ddl("sequences"))


def built(frame):
    return {row["user_id"]: (row["item_idx"], row["seen_items"]) for row in frame.collect()}


def test_events_are_ordered_by_time_then_event_id(spark):
    rows = sequences.build(steps(spark, ("u", 5, "b", 3), ("u", 5, "a", 2), ("u", 1, "z", 1)), no_sequences(spark), 10)
    assert built(rows) == {"u": ([1, 2, 3], [1, 2, 3])}
    assert rows.columns == [*schemas.columns("sequences")[:-1], "has_row"]  # all but `updated_at`
    assert rows.first()["last_event_time"] == START + timedelta(minutes=5)


def test_only_the_newest_events_stay_but_all_items_are_seen(spark):
    rows = sequences.build(steps(spark, *[("u", k, f"e{k}", k + 1) for k in range(5)]), no_sequences(spark), 2)
    assert built(rows) == {"u": ([4, 5], [1, 2, 3, 4, 5])}


def test_a_late_event_is_inserted_at_its_time(spark):
    first = sequences.build(steps(spark, ("u", 1, "a", 1), ("u", 9, "c", 3)), no_sequences(spark), 10)
    assert built(sequences.build(steps(spark, ("u", 5, "b", 2)), first, 10)) == {"u": ([1, 2, 3], [1, 2, 3])}


def test_a_late_event_older_than_the_kept_ones_only_adds_to_the_seen_items(spark):
    first = sequences.build(steps(spark, ("u", 8, "a", 1), ("u", 9, "c", 3)), no_sequences(spark), 2)
    assert built(sequences.build(steps(spark, ("u", 5, "b", 2)), first, 2)) == {"u": ([1, 3], [1, 2, 3])}


def test_an_event_already_in_the_sequence_is_not_doubled(spark):
    first = sequences.build(steps(spark, ("u", 1, "a", 1)), no_sequences(spark), 10)
    again = sequences.build(steps(spark, ("u", 1, "a", 1), ("u", 2, "b", 1)), first, 10)
    assert built(again) == {"u": ([1, 1], [1])}


def test_users_without_new_events_are_not_in_the_result(spark):
    first = sequences.build(steps(spark, ("u", 1, "a", 1), ("v", 1, "b", 2)), no_sequences(spark), 10)
    assert set(built(sequences.build(steps(spark, ("v", 2, "c", 1)), first, 10))) == {"v"}


def test_a_row_says_whether_its_user_already_has_a_sequence(spark):
    first = sequences.build(steps(spark, ("u", 1, "a", 1)), no_sequences(spark), 10)
    both = sequences.build(steps(spark, ("u", 2, "b", 1), ("v", 2, "c", 1)), first, 10)
    assert {row["user_id"]: row["has_row"] for row in both.collect()} == {"u": True, "v": False}


def test_two_batches_give_the_same_sequences_as_one(spark):
    rows = [("u", (k * 7) % 11, f"e{k}", k % 4 + 1) for k in range(11)]
    whole = sequences.build(steps(spark, *rows), no_sequences(spark), 5)
    first = sequences.build(steps(spark, *rows[:6]), no_sequences(spark), 5)
    assert built(sequences.build(steps(spark, *rows[6:]), first, 5)) == built(whole)


def test_searches_impressions_and_unknown_items_are_left_out(spark):
    event = {"event_id": "e", "user_id": "u", "event_time": START, "value": 2.0, "ingested_at": START}
    rows = [
        {**event, "event_type": "purchase", "item_id": "a"},
        {**event, "event_type": "impression", "item_id": "a"},
        {**event, "event_type": "search", "item_id": None},
        {**event, "event_type": "view", "item_id": "gone"},
    ]
    ddl = "event_id string, user_id string, event_time timestamp, value double, event_type string, item_id string"
    events = spark.createDataFrame(rows, f"{ddl}, ingested_at timestamp")
    items = spark.createDataFrame([("a", 7)], "item_id string, item_idx int")
    found = [tuple(row) for row in sequences.filter_steps(events, items).collect()]
    assert found == [("u", START, "e", 7, "purchase", 2.0, START)]
