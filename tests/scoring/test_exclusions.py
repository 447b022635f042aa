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


def excluded_for(rules, *steps, seen=None, exclude_seen=False):
    """The excluded items of a user with steps (item, type, days ago), who has also seen the items in ``seen``."""
    items, types, days = zip(*steps, strict=True) if steps else ((), (), ())
    at = [NOW - ago * DAY for ago in days]
    one = {"item_idx": items, "event_type": types, "at": at, "value": [np.nan] * len(at)}
    frame = pd.DataFrame({name: [np.array(values)] for name, values in one.items()})
    ever = np.array(sorted({*items, *(seen or ())}), dtype=np.int64)
    topn = Topn(exclude_seen=exclude_seen, exclude=rules)
    (found,) = excluded_items(Steps.of(frame), [ever], topn, np.array([NOW]), LENGTH)
    return found.tolist()


def test_all_seen_items_are_excluded_by_default():
    assert excluded_for([], (3, "view", 1), seen=[7, 9], exclude_seen=True) == [3, 7, 9]


def test_without_a_rule_no_item_is_excluded():
    assert excluded_for([], (3, "purchase", 0)) == []


def test_a_rule_excludes_items_by_its_event_types_within_its_days():
    steps = [(1, "purchase", 40), (2, "purchase", 29), (3, "view", 1)]
    assert excluded_for([BOUGHT], *steps) == [2]
    assert excluded_for([{"event_types": ["purchase"]}], *steps) == [1, 2]
    assert excluded_for([BOUGHT, {"event_types": ["view", "click"], "days": 2}], *steps) == [2, 3]


def test_an_event_exactly_as_old_as_the_days_of_a_rule_excludes_nothing():
    assert excluded_for([BOUGHT], (1, "purchase", 30)) == []


@pytest.mark.parametrize(
    "steps",
    [
        [(1, "view", 20), (2, "view", 3), (1, "view", 2), (2, "view", 1)],
        [(1, "view", 20), (2, "purchase", 3)],
    ],
    ids=["as many as a sequence holds", "an item was seen that no step has"],
)
def test_a_history_truncated_within_the_days_of_a_rule_excludes_all_seen_items(steps):
    assert excluded_for([BOUGHT], *steps, seen=[8]) == [1, 2, 8]


def test_a_truncated_history_that_covers_the_days_of_a_rule_is_trusted():
    steps = [(1, "purchase", 31), (2, "purchase", 3), (3, "view", 2), (4, "view", 1)]
    assert excluded_for([BOUGHT], *steps, seen=[8]) == [2]
    assert excluded_for([{"event_types": ["purchase"]}], *steps, seen=[8]) == [1, 2, 3, 4, 8]


def test_a_user_without_events_has_no_excluded_items():
    assert excluded_for([BOUGHT]) == []
