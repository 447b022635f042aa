"""Histories typed by hand or looked up."""

import math

import pandas as pd
import pytest

from headwater.errors import UsageError
from headwater.scoring import adhoc

CATALOG = pd.DataFrame({"item_id": ["a", "b", "c"], "item_idx": [1, 2, 3], "title": ["Tea", None, "Cake"]})


def test_a_word_that_names_no_event_is_named():
    assert adhoc.parse("view:a purchase:b:c") == [("view", "a"), ("purchase", "b:c")]
    with pytest.raises(UsageError, match="'a' is not TYPE:ITEM"):
        adhoc.parse("a")


def test_a_typed_history_is_a_user_without_what_the_catalogue_lacks():
    user = adhoc.row([("view", "c"), ("click", "x"), ("view", "a"), ("view", "c")], CATALOG, 5.0)
    assert user.iloc[0].to_dict() == {
        "user_id": "",
        "item_idx": [3, 1, 3],
        "event_type": ["view", "view", "view"],
        "at": [5.0, 5.0, 5.0],
        "value": [math.nan] * 3,
        "seen_items": [1, 3],
    }
    assert adhoc.events(user, CATALOG) == [("view", "c"), ("view", "a"), ("view", "c")]


def test_unknown_is_what_the_catalogue_lacks_and_what_came_after_the_model():
    assert adhoc.unknown([("view", "c"), ("click", "x"), ("view", "a")], CATALOG, n_items=2) == ["c", "x"]
