"""Attribution: which list an action is attributed to, on small tables."""

from datetime import datetime, timedelta

import pytest

from headwater import feedback, schemas

NOON = datetime(2026, 1, 1, 12)
REWARDS = {"view": 0.5, "click": 1.0, "purchase": 4.0, "rating": 1.0}


def at(minutes):
    return NOON + timedelta(minutes=minutes)


def lists(spark, *rows):
    """(user, minute, items in rank order, model version)"""
    full = [
        (user, rank, item, 1.0, "", "model", version, at(minute), at(minute), 0.25 if rank == 1 else None)
        for user, minute, items, version in rows
        for rank, item in enumerate(items, start=1)
    ]
    return spark.createDataFrame(full, schemas.ddl("topn_history"))


def events(spark, *rows):
    """(event_id, user, item, type, minute[, value])"""
    full = [
        (event, user, item, kind, at(minute), *(value or (None,)), None, None, "", "", NOON, NOON.date())
        for event, user, item, kind, minute, *value in rows
    ]
    return spark.createDataFrame(full, schemas.ddl("events"))


def attributed(spark, happened, shown, hours=1.0):
    rows = feedback.attribute(happened, shown, hours, REWARDS, 5.0, NOON)
    assert rows.columns == schemas.columns("feedback")
    wanted = ("event_id", "rank", "model_version", "served_at", "propensity")
    return sorted(tuple(row[name] for name in wanted) for row in rows.collect())


def test_an_action_is_attributed_to_the_newest_list_at_its_time(spark):
    shown = lists(spark, ("u", 0, "abc", 1), ("u", 10, "bca", 2), ("u", 30, "cab", 3))
    happened = events(spark, ("e1", "u", "b", "click", 5), ("e2", "u", "b", "click", 20), ("e3", "u", "b", "click", 40))
    assert attributed(spark, happened, shown) == [
        ("e1", 2, 1, at(0), None),
        ("e2", 1, 2, at(10), 0.25),
        ("e3", 3, 3, at(30), None),
    ]


def test_an_action_on_an_item_that_is_only_in_an_older_list_is_not_attributed(spark):
    shown = lists(spark, ("u", 0, "ab", 1), ("u", 10, "cd", 1))
    assert attributed(spark, events(spark, ("e", "u", "a", "click", 20)), shown) == []


def test_an_action_before_the_first_list_is_not_attributed(spark):
    assert attributed(spark, events(spark, ("e", "u", "a", "click", -1)), lists(spark, ("u", 0, "a", 1))) == []


def test_an_action_at_the_exact_time_of_a_list_is_attributed_to_it(spark):
    shown = lists(spark, ("u", 0, "ab", 1), ("u", 10, "ba", 2))
    assert attributed(spark, events(spark, ("e", "u", "a", "view", 10)), shown) == [("e", 2, 2, at(10), None)]


@pytest.mark.parametrize(("minute", "count"), [(60, 1), (61, 0)])
def test_an_action_is_attributed_up_to_and_including_the_end_of_the_window(spark, minute, count):
    assert (
        len(attributed(spark, events(spark, ("e", "u", "a", "click", minute)), lists(spark, ("u", 0, "a", 1)))) == count
    )


def test_an_action_is_not_attributed_to_the_list_of_another_user(spark):
    shown = lists(spark, ("u", 0, "b", 1), ("v", 0, "a", 1))
    assert attributed(spark, events(spark, ("e", "u", "a", "click", 5)), shown) == []


def test_searches_impressions_and_types_without_a_reward_are_left_out(spark):
    happened = events(
        spark, ("e1", "u", None, "search", 5), ("e2", "u", "a", "impression", 5), ("e3", "u", "a", "add_to_cart", 5)
    )
    assert attributed(spark, happened, lists(spark, ("u", 0, "a", 1))) == []


def test_two_actions_on_one_item_are_two_rows(spark):
    happened = events(spark, ("e1", "u", "a", "view", 5), ("e2", "u", "a", "purchase", 5))
    assert [row[0] for row in attributed(spark, happened, lists(spark, ("u", 0, "a", 1)))] == ["e1", "e2"]


def test_without_any_list_or_any_event_there_is_no_feedback(spark):
    assert attributed(spark, events(spark, ("e", "u", "a", "click", 5)), lists(spark)) == []
    assert attributed(spark, events(spark), lists(spark, ("u", 0, "a", 1))) == []


@pytest.mark.parametrize(
    ("kind", "value", "reward"),
    [
        ("view", None, 0.5),
        ("click", 99.0, 1.0),
        ("rating", 5.0, 1.0),
        ("rating", 2.0, 1.0 * 2 / 5),
        ("rating", 50.0, 1.0),
        ("rating", -1.0, 0.0),
        ("rating", None, 0.5),
        ("purchase", None, 4.0),
        ("purchase", 0.0, 4.0),
        ("purchase", 1.0, 4.0 * 1),
        ("purchase", 3.0, 4.0 * 2),
        ("purchase", 10_000.0, 4.0 * 2),
        ("purchase", -2.0, 0.0),
        ("impression", None, 0.0),
    ],
)
def test_a_reward_is_a_weight_scaled_by_the_value_within_bounds(spark, kind, value, reward):
    row = spark.createDataFrame([(kind, value)], "kind string, value double")
    assert row.select(feedback.reward(row.kind, row.value, REWARDS, 5.0)).first()[0] == pytest.approx(reward)
