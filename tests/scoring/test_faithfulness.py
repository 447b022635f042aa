"""Faithfulness of reasons: an item is removed from the history, and the places that name it are scored again."""

import numpy as np
import pytest
import torch

from headwater.models import ModelSpec, build
from headwater.models.ranker import Ranker
from headwater.models.transitions import count
from headwater.scoring.faithfulness import METRICS, shares

FOLLOWED = np.array([[1, 4], [1, 4], [2, 5], [2, 5], [3, 6], [3, 6]])
"""Item 1 is followed by 4, item 2 by 5, item 3 by 6."""


@pytest.fixture
def ranker():
    """A ranker whose scores differ by transitions alone: the model's item vectors are zero."""
    model = build(ModelSpec("sasrec", n_items=6, max_length=4, dim=8, layers=1, heads=1))
    torch.nn.init.zeros_(model.item.weight)
    return Ranker(model, {"blend": {"transitions": 1.0}}, {"transitions": count(FOLLOWED, 6)})


def rounded_shares(ranker, histories, items, because):
    found = shares(
        ranker,
        *ranker.pad(histories, [[1] * len(each) for each in histories]),
        torch.tensor(items),
        torch.tensor(because),
    )
    return tuple(round(found[name], 4) for name in METRICS) if found else None


def test_a_reason_holds_only_if_its_item_raised_the_score(ranker):
    assert rounded_shares(ranker, [[1, 2]], [[4, 5]], [[1, 2]])[:2] == (1.0, 1.0)
    assert rounded_shares(ranker, [[1, 2]], [[4, 5]], [[2, 2]])[:2] == (1.0, 1 / 2)
    assert rounded_shares(ranker, [[1, 2]], [[4, 5]], [[2, 1]])[:2] == (1.0, 0.0)


def test_removing_a_random_item_of_three_lowers_one_place_of_three(ranker):
    everything = [[1, 2, 3]] * 50  # the random item is one of three
    assert rounded_shares(ranker, everything, [[4, 5, 6]] * 50, [[1, 2, 3]] * 50) == (1.0, 1.0, round(1 / 3, 4))


def test_all_events_of_the_named_item_are_removed(ranker):
    assert rounded_shares(ranker, [[1, 2, 1]], [[4, 5]], [[1, 2]])[:2] == (1.0, 1.0)


def test_places_without_a_reason_or_beyond_the_end_of_a_list_are_not_explained(ranker):
    assert rounded_shares(ranker, [[1, 2]], [[4, 5, 6, 0]], [[1, 0, 0, 1]])[:2] == (round(1 / 3, 4), 1.0)


def test_users_with_only_one_item_are_left_out(ranker):
    assert rounded_shares(ranker, [[1, 1], [1, 2]], [[4, 5], [4, 5]], [[2, 2], [1, 2]])[:2] == (1.0, 1.0)
    assert rounded_shares(ranker, [[1, 1]], [[4, 5]], [[1, 1]]) is None
    assert rounded_shares(ranker, [[1, 2]], [[4, 5]], [[0, 0]]) is None
