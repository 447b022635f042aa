"""Exclusion of items by event type and age, and the rule for truncated histories, which may lack the event."""

import numpy as np
import pandas as pd
import pytest

from headwater.config import Topn
from headwater.scoring.exclusions import DAY, excluded_items
from headwater.scoring.users import Steps

LENGTH = 4
NOW = 100 * DAY
BOUGHT = {"event_types": ["purchase"], "days": 30}


def of(rules, *steps, seen=None, exclude_seen=False):
    """The excluded items of a user with steps (item, type, days ago), who has also seen the items in ``seen``."""
    items, types, days = zip(*steps, strict=True) if steps else ((), (), ())
    at = [NOW - ago * DAY for ago in days]
    one = {"item_idx": items, "event_type": types, "at": at, "value": [np.nan] * len(at)}
    frame = pd.DataFrame({name: [np.array(values)] for name, values in one.items()})
    ever = np.array(sorted({*items, *(seen or ())}), dtype=np.int64)
    topn = Topn(exclude_seen=exclude_seen, exclude=rules)
    (found,) = excluded_items(Steps.of(frame), [ever], topn, np.array([NOW]), LENGTH)
    return found.tolist()


def test_all_that_was_seen_is_left_out_by_default():
    assert of([], (3, "view", 1), seen=[7, 9], exclude_seen=True) == [3, 7, 9]


def test_without_a_rule_everything_may_come_again():
    assert of([], (3, "purchase", 0)) == []


def test_a_rule_means_its_types_and_its_days():
    steps = [(1, "purchase", 40), (2, "purchase", 29), (3, "view", 1)]
    assert of([BOUGHT], *steps) == [2]
    assert of([{"event_types": ["purchase"]}], *steps) == [1, 2]
    assert of([BOUGHT, {"event_types": ["view", "click"], "days": 2}], *steps) == [2, 3]


def test_the_day_on_which_a_rule_ends_an_item_may_come_again():
    assert of([BOUGHT], (1, "purchase", 30)) == []


@pytest.mark.parametrize(
    "steps",
    [
        [(1, "view", 20), (2, "view", 3), (1, "view", 2), (2, "view", 1)],
        [(1, "view", 20), (2, "purchase", 3)],
    ],
    ids=["as many as a sequence holds", "an item was seen that no step has"],
)
def test_a_history_cut_off_inside_the_days_of_a_rule_leaves_out_all_that_was_seen(steps):
    assert of([BOUGHT], *steps, seen=[8]) == [1, 2, 8]


def test_a_cut_off_history_that_reaches_back_far_enough_is_believed():
    steps = [(1, "purchase", 31), (2, "purchase", 3), (3, "view", 2), (4, "view", 1)]
    assert of([BOUGHT], *steps, seen=[8]) == [2]
    assert of([{"event_types": ["purchase"]}], *steps, seen=[8]) == [1, 2, 3, 4, 8]


def test_a_user_without_any_event_has_nothing_left_out():
    assert of([BOUGHT]) == []
