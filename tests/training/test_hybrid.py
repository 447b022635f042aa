"""Blend weights, on data whose right answer is known."""

import numpy as np
import pytest
import torch

from headwater.models import ModelSpec, build
from headwater.models.ranker import blended, recency_scores
from headwater.models.transitions import count
from headwater.training import hybrid
from headwater.training.hybrid import best_blend, fit_parts, shortlists_of
from headwater.training.validation import Cases, ndcg

ITEMS = 40


def cases(targets, popular, exclude_seen=True):
    """User k last saw item k + 1, and the target is ``targets[k]``."""
    users = len(targets)
    items = np.zeros((users, 3), dtype=np.int64)
    items[:, -1] = np.arange(users) + 1
    starts = np.arange(users + 1)
    hidden = starts if exclude_seen else starts * 0
    return Cases(items, items * 0 + 1, hidden, items[:, -1], starts, np.array(targets), recency_scores(popular).numpy())


@pytest.fixture
def model():
    torch.manual_seed(3)
    return build(ModelSpec("sasrec", n_items=ITEMS, max_length=3, dim=4, layers=1, heads=1)).eval()


def test_transitions_get_the_weight_if_users_take_the_item_that_usually_follows(model):
    follows = np.array([[k, k + 1] for k in range(1, 10)])
    weights = best_blend(model, {"transitions": count(follows, ITEMS)}, cases(range(2, 11), np.zeros(ITEMS + 1)))
    assert weights["transitions"] * np.log(101) > 1  # a certain transition outweighs the differences of logits
    assert weights["recency"] == 0


def test_recency_gets_the_weight_if_all_users_take_the_popular_item(model):
    popular = np.zeros(ITEMS + 1)
    popular[12] = 100
    weights = best_blend(model, {"transitions": count(np.array([[1, 2]]), ITEMS)}, cases([12] * 9, popular))
    assert weights["recency"] > 0
    assert weights["transitions"] == 0


def test_repeats_get_the_weight_if_users_take_items_again_and_lists_may_hold_them(model):
    parts = fit_parts(["transitions", "repeats"], np.array([[0, 2, 1]]), ITEMS)
    again = range(1, 10)
    weights = best_blend(model, parts, cases(again, np.zeros(ITEMS + 1), exclude_seen=False))
    assert weights["repeats"] * np.log(101) > 1
    assert weights["transitions"] == weights["recency"] == 0
    assert best_blend(model, parts, cases(again, np.zeros(ITEMS + 1)))["repeats"] == 0  # a seen item may not be listed


def test_an_item_without_events_has_no_neighbours_but_can_be_repeated():
    rows = np.array([[0, 2, 1], [0, 2, 3]])
    parts = fit_parts(["transitions", "ease", "als", "repeats"], rows, ITEMS + 1)
    history = torch.tensor([[0, 2, ITEMS + 1]])
    said = {name: part.evidence(history).toarray().ravel().nonzero()[0].tolist() for name, part in parts.items()}
    assert {1, 3} <= set(said["transitions"])
    assert ITEMS + 1 not in said["transitions"] + said["ease"] + said["als"]
    assert said["repeats"] == [2, ITEMS + 1]


def test_the_ndcg_from_shortlists_equals_that_from_the_whole_catalogue(model):
    rows = np.array([[1, 2, 5], [1, 2, 6], [4, 3, 2], [9, 8, 3]])
    parts = fit_parts(["transitions", "ease", "als"], rows, ITEMS)
    held = cases(range(4, 12), np.arange(ITEMS + 1.0))
    everybody = np.arange(len(held))
    with torch.inference_mode():
        found = list(shortlists_of(model, parts, held))
        for weights in (
            {"transitions": 0.5, "ease": 3.0, "als": 2.0, "recency": 0.0},
            dict.fromkeys([*parts, "recency"], 1.0),
        ):
            items = torch.from_numpy(held.item)
            logits = model.user_vectors(items, torch.from_numpy(held.context)) @ model.item_matrix().T
            evidence = {name: torch.from_numpy(part.evidence(items).toarray()) for name, part in parts.items()}
            whole = blended(logits, evidence | {"recency": torch.from_numpy(held.prior)}, weights)
            held.hide_seen(whole, everybody)
            expected = ndcg(whole, held.target_places(everybody, ITEMS + 1), held.ideal(everybody))
            assert 0 < expected.mean() < 1
            assert torch.cat([some.ndcg(weights) for some in found]).tolist() == pytest.approx(expected.tolist())


def test_with_too_many_candidates_only_some_users_are_used(model, monkeypatch):
    held = cases(range(4, 12), np.arange(ITEMS + 1.0))
    monkeypatch.setattr(hybrid, "CELLS", 30)
    with torch.inference_mode():
        found = list(shortlists_of(model, {}, held))
    assert sum(len(some.logits) for some in found) == 30 // 10 + 1


def test_without_validation_users_every_part_has_weight_one(model):
    nobody = cases([], np.zeros(ITEMS + 1))
    parts = fit_parts(["transitions", "ease", "recency"], np.array([[1, 2]]), ITEMS)
    assert best_blend(model, parts, nobody) == {"transitions": 1.0, "ease": 1.0, "recency": 1.0}
