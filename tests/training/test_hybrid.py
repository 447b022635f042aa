"""The weights of a blend, on data whose right answer is known."""

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


def cases(targets, popular):
    """User k last saw item k + 1 and takes ``targets[k]``."""
    users = len(targets)
    items = np.zeros((users, 3), dtype=np.int64)
    items[:, -1] = np.arange(users) + 1
    starts = np.arange(users + 1)
    return Cases(items, items * 0 + 1, starts, items[:, -1], starts, np.array(targets), recency_scores(popular).numpy())


@pytest.fixture
def model():
    torch.manual_seed(3)
    return build(ModelSpec("sasrec", n_items=ITEMS, max_length=3, dim=4, layers=1, heads=1)).eval()


def test_where_each_takes_what_follows_transitions_lead(model):
    follows = np.array([[k, k + 1] for k in range(1, 10)])
    weights = best_blend(model, {"transitions": count(follows, ITEMS)}, cases(range(2, 11), np.zeros(ITEMS + 1)))
    assert weights["transitions"] * np.log(101) > 1  # what followed every time outweighs what logits differ by
    assert weights["recency"] == 0


def test_where_all_take_what_is_popular_recency_leads(model):
    popular = np.zeros(ITEMS + 1)
    popular[12] = 100
    weights = best_blend(model, {"transitions": count(np.array([[1, 2]]), ITEMS)}, cases([12] * 9, popular))
    assert weights["recency"] > 0
    assert weights["transitions"] == 0


def test_shortlists_hold_every_list_that_the_whole_catalogue_gives(model):
    rows = np.array([[1, 2, 5], [1, 2, 6], [4, 3, 2], [9, 8, 3]])
    parts = fit_parts(["transitions", "ease"], rows, ITEMS)
    held = cases(range(4, 12), np.arange(ITEMS + 1.0))
    everybody = np.arange(len(held))
    with torch.inference_mode():
        found = list(shortlists_of(model, parts, held))
        for weights in ({"transitions": 0.5, "ease": 3.0, "recency": 0.0}, dict.fromkeys([*parts, "recency"], 1.0)):
            items = torch.from_numpy(held.item)
            logits = model.user_vectors(items, torch.from_numpy(held.context)) @ model.item_matrix().T
            evidence = {name: torch.from_numpy(part.evidence(items).toarray()) for name, part in parts.items()}
            whole = blended(logits, evidence | {"recency": torch.from_numpy(held.prior)}, weights)
            held.hide_seen(whole, everybody)
            expected = ndcg(whole, held.wanted(everybody, ITEMS + 1), held.ideal(everybody))
            assert 0 < expected.mean() < 1
            assert torch.cat([some.ndcg(weights) for some in found]).tolist() == pytest.approx(expected.tolist())


def test_where_candidates_are_too_many_some_users_decide(model, monkeypatch):
    held = cases(range(4, 12), np.arange(ITEMS + 1.0))
    monkeypatch.setattr(hybrid, "CELLS", 30)
    with torch.inference_mode():
        found = list(shortlists_of(model, {}, held))
    assert sum(len(some.logits) for some in found) == 30 // 10 + 1


def test_without_anybody_to_ask_all_weigh_one(model):
    nobody = cases([], np.zeros(ITEMS + 1))
    parts = fit_parts(["transitions", "ease", "recency"], np.array([[1, 2]]), ITEMS)
    assert best_blend(model, parts, nobody) == {"transitions": 1.0, "ease": 1.0, "recency": 1.0}
