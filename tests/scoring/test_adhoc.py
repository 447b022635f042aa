"""Histories given by hand or looked up in the tables."""

import math

import pandas as pd
import pytest

from headwater.config import Wording
from headwater.config.topn import Because
from headwater.errors import UsageError
from headwater.schemas import EVENT_TYPES, STEP_TYPES
from headwater.scoring import adhoc

CATALOG = pd.DataFrame({"item_id": ["a", "b", "c"], "item_idx": [1, 2, 3], "title": ["Tea", None, "Cake"]})


def test_a_word_not_of_the_form_type_item_is_refused_by_name():
    assert adhoc.parse("view:a purchase:b:c") == [("view", "a"), ("purchase", "b:c")]
    with pytest.raises(UsageError, match="'a' is not TYPE:ITEM"):
        adhoc.parse("a")


def test_an_id_with_a_blank_is_given_in_quotes():
    assert adhoc.parse(""" view:"BANK CHARGES"  click:it's purchase:#1 """) == [
        ("view", "BANK CHARGES"), ("click", "it's"), ("purchase", "#1")
    ]  # fmt: skip
    with pytest.raises(UsageError, match="is not closed"):
        adhoc.parse('view:"BANK')


def test_a_typed_history_becomes_a_user_without_items_missing_from_the_catalogue():
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


def test_items_missing_from_the_catalogue_or_newer_than_the_model_are_unknown():
    assert adhoc.unknown([("view", "c"), ("click", "x"), ("view", "a")], CATALOG, n_items=2) == ["c", "x"]


def test_an_answer_without_a_list_says_why():
    assert "none of these items is in the catalogue" in adhoc.table(adhoc.Answer([], ["x"], any_known=False))
    assert "the rules in topn exclude every item" in adhoc.table(adhoc.Answer([], [], any_known=True))


def test_a_reason_is_worded_as_configured_by_the_type_of_its_event():
    titles = CATALOG.set_index("item_idx")["title"]
    german = Wording(because={"rating": "weil du {} bewertet hast"}, again="das")
    for kind, wording, item, reason in (
        ("search", Wording(), 3, "because you searched for Tea"),
        ("rating", german, 3, "weil du Tea bewertet hast"),
        ("rating", german, 1, "weil du das bewertet hast"),
        ("search", german, 3, "because you searched for Tea"),
    ):
        place = {"item_idx": item, "because_idx": 1, "because_type": EVENT_TYPES.index(kind) + 1, "otherwise": ""}
        assert adhoc._reason(place, titles, wording) == reason


def test_every_event_type_of_a_sequence_has_a_wording():
    assert tuple(Because.model_fields) == STEP_TYPES
