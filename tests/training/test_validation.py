"""The early-stopping metric: NDCG by arithmetic, and the effect of a prior."""

from dataclasses import replace
from math import log2

import numpy as np
import pytest
import torch

from headwater.models import ModelSpec, build
from headwater.training import validation
from headwater.training.validation import Cases, mean_ndcg, ndcg

CASES = Cases(
    item=np.array([[0, 1, 2], [0, 0, 3]]),
    context=np.array([[0, 1, 1], [0, 0, 1]]),
    seen_start=np.array([0, 2, 3]),
    seen=np.array([1, 2, 3]),
    target_start=np.array([0, 1, 3]),
    target=np.array([4, 5, 6]),
)


def test_ndcg_discounts_by_rank_excludes_seen_items_and_counts_ties_against_the_target():
    scores, users = torch.tensor([[9.0, 9, 9, 3, 2, 1, 0], [9.0, 1, 1, 9, 1, 5, 1]]), np.array([0, 1])
    CASES.hide_seen(scores, users)
    first = (1 / log2(1 + 2)) / 1  # items 1 and 2 are seen, item 3 is ahead
    second = (1 / log2(1 + 1) + 1 / log2(1 + 5)) / (1 / log2(1 + 1) + 1 / log2(1 + 2))  # items 1, 2, 4 tie with item 6
    gains = ndcg(scores, CASES.target_places(users, 7), CASES.ideal(users))
    assert gains.tolist() == pytest.approx([first, second])


def test_unknown_and_hidden_targets_count_as_missed():
    scores = torch.tensor([[9.0, 9, 9, 9, 9, 8]])  # items 1 to 3 are seen, item 6 is newer than the model
    cases = replace(CASES, seen_start=np.array([0, 3]), target_start=np.array([0, 3]), target=np.array([3, 5, 6]))
    users = np.array([0])
    cases.hide_seen(scores, users)
    expected = (1 / log2(1 + 2)) / (1 / log2(1 + 1) + 1 / log2(1 + 2) + 1 / log2(1 + 3))
    assert ndcg(scores, cases.target_places(users, 6), cases.ideal(users)).tolist() == pytest.approx([expected])


def test_first_returns_a_consistent_subset_of_the_cases():
    first = CASES.first(1)
    assert (len(first), first.seen.tolist(), first.target.tolist()) == (1, [1, 2], [4])
    assert len(CASES.first(9)) == 2


def test_with_a_prior_the_ndcg_is_that_of_the_best_blend():
    torch.manual_seed(1)
    model = build(ModelSpec("gru", n_items=6, max_length=3, dim=8, layers=1, heads=1))
    alone = mean_ndcg(model, CASES, torch.device("cpu"))
    told = np.array([0, 0, 0, 0, 300, 200, 100], dtype=np.float32)  # the first user's target, then the second's two
    second = (1 / log2(1 + 2) + 1 / log2(1 + 3)) / (1 / log2(1 + 1) + 1 / log2(1 + 2))
    assert mean_ndcg(model, replace(CASES, prior=told), torch.device("cpu")) == pytest.approx((1 + second) / 2)
    assert mean_ndcg(model, replace(CASES, prior=np.zeros(7, np.float32)), torch.device("cpu")) == pytest.approx(alone)
    assert mean_ndcg(model, replace(CASES, prior=-told), torch.device("cpu")) == pytest.approx(alone)  # weight 0


def test_a_large_catalogue_is_ranked_for_fewer_users_at_a_time(monkeypatch):
    torch.manual_seed(1)
    model = build(ModelSpec("gru", n_items=6, max_length=3, dim=8, layers=1, heads=1))
    alike = replace(CASES, prior=np.arange(7, dtype=np.float32))
    together = mean_ndcg(model, alike, torch.device("cpu"))
    ranked = []
    monkeypatch.setattr(
        Cases, "hide_seen", lambda *args, real=Cases.hide_seen: ranked.append(args[1].shape) or real(*args)
    )
    monkeypatch.setattr(validation, "TILE_SCORES", 13)
    assert mean_ndcg(model, alike, torch.device("cpu")) == pytest.approx(together)
    assert ranked == [(1, 7), (1, 7)]


def test_cases_are_loaded_from_their_file_as_they_were_saved(tmp_path):
    CASES.save(tmp_path / "cases.npz")
    back = Cases.load(tmp_path / "cases.npz")
    for name in Cases.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back, name), getattr(CASES, name))
