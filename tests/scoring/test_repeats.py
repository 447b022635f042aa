"""Repeat purchases, against the formula written out and in a small shop."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from headwater import schemas
from headwater.config import Repeat
from headwater.scoring.repeats import DAY, Intervals, bonus, chances, intervals
from headwater.scoring.users import Steps

RULE = Repeat(weight=2.0, days=7)
MONDAY = datetime(2026, 1, 5, 9)


def chance(times, first, last, today, days=10.0, share=0.5, ahead=7.0):
    numbers = (np.array([value]) for value in (times, first, last, today, days, share))
    return chances(*numbers, ahead)[0]


def test_the_repeat_chance_equals_the_formula():
    # three times in 20 days, so every 10 days; last 4 days ago; the item's usual interval is 10 days
    rate = (3 + 1) / (20 + 2 * abs(10 - 4) + 10)
    assert chance(3, 0, 20, 24) == pytest.approx((0.5 + 2) / (1 + 2) * (1 - np.exp(-7 * rate)))
    # once, 25 days ago, more than twice the item's interval of 10 days
    rate = (1 + 1) / (25 + 10)
    assert chance(1, 0, 0, 25) == pytest.approx(0.5 * (1 - np.exp(-7 * rate)))


def test_the_repeat_chance_rises_until_the_usual_interval_has_passed_and_then_falls():
    daily = [chance(3, 0, 20, 20 + gone) for gone in range(40)]
    assert np.argmax(daily) == 10
    assert daily[:11] == sorted(daily[:11])
    assert daily[10:] == sorted(daily[10:], reverse=True)


def test_a_user_who_repeated_a_purchase_has_a_higher_chance_than_one_who_did_not():
    assert chance(2, 0, 10, 20) > chance(1, 10, 10, 20) > 0


def test_an_item_that_is_never_bought_twice_has_no_chance():
    assert chance(1, 0, 0, 10, days=0.0, share=0.0) == 0


def test_only_bought_items_get_a_bonus_and_lines_of_one_order_count_as_one_purchase():
    frame = pd.DataFrame(
        {
            "item_idx": [np.array([1, 1, 2, 1]), np.array([], dtype=np.int64)],
            "event_type": [np.array(["purchase", "purchase", "view", "purchase"]), np.array([])],
            "at": [np.array([0.1, 0.2, 1, 8.5]) * DAY, np.array([])],
            "value": [np.full(4, np.nan), np.array([])],
        }
    )
    known = Intervals(np.array([0.0, 10, 5, 5]), np.array([0.0, 0.5, 0.5, 0.5]))
    found = bonus(Steps.of(frame), known, RULE, np.array([10.9, 10.9]) * DAY).toarray()
    assert found[0].tolist() == [0, pytest.approx(2 * chance(2, 0, 8, 10)), 0, 0]
    assert found[1].tolist() == [0, 0, 0, 0]


def test_the_interval_of_an_item_is_averaged_over_the_repeat_purchases_of_all_users(spark):
    def sequence(user, *steps):
        items, kinds, days = zip(*steps, strict=True)
        times = [MONDAY + timedelta(days=day) for day in days]
        ids = [f"{user}{k}" for k in range(len(steps))]
        return (user, list(items), list(kinds), times, ids, [None] * len(steps), sorted(set(items)), times[-1], MONDAY)

    rows = [
        sequence(
            "a", (1, "purchase", 0), (1, "purchase", 0.1), (1, "purchase", 6), (1, "purchase", 12), (2, "view", 1)
        ),
        sequence("b", (1, "purchase", 0), (1, "purchase", 9), (2, "purchase", 3), (9, "purchase", 4)),
        sequence("c", (1, "purchase", 0), (2, "view", 5), (2, "view", 9)),
        sequence("d", (1, "purchase", 0)),
    ]
    found = intervals(spark.createDataFrame(rows, schemas.ddl("sequences")), RULE, 3)
    assert found.days.tolist() == [0, (12 + 9) / (2 + 1), 0, 0]
    assert found.share.tolist() == [0, 2 / 4, 0, 0]
