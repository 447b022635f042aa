"""A ranker scores the whole catalogue by one product, which equals the blend chosen on validation."""

import numpy as np
import pytest
import torch

from headwater.models import ENCODERS, ModelSpec, build, ease, repeats
from headwater.models.neighbours import WEAK_SCORE
from headwater.models.ranker import Ranker, blended, recency_scores
from headwater.models.transitions import count
from headwater.scoring.candidates import Candidates

SEQUENCES = np.array([[0, 1, 2, 3], [4, 5, 1, 2], [3, 4, 5, 6]])
WEIGHTS = {"transitions": 2.0, "ease": 3.0, "recency": 0.5}
NEW = torch.tensor([10, 11])
COUNTS = np.array([0.0, 5, 1, 7, 0, 2, 3, 0, 0, 1])


def ranker(hybrid):
    torch.manual_seed(1)
    model = build(
        ModelSpec("sasrec", n_items=9, max_length=4, dim=8, layers=1, heads=1, dropout=0.1, mask_probability=0.2)
    )
    made = Ranker(
        model,
        {"blend": WEIGHTS} if hybrid else {},
        {"transitions": count(SEQUENCES, 9), "ease": ease.fit(SEQUENCES, 9, ridge=1.0)} if hybrid else None,
    )
    return made.with_recency(COUNTS)


@pytest.mark.parametrize("kind", ENCODERS)
def test_moving_a_ranker_to_another_device_leaves_the_original_encoder_in_place(kind):
    made = Ranker(build(ModelSpec(kind, 9, max_length=4, dim=8, layers=2, feature_buckets=3, feature_cells=5)), {})
    moved, near = made.on(torch.device("meta")), made.on(torch.device("cpu"))
    assert (made.device.type, moved.device.type) == ("cpu", "meta")
    assert {tensor.device.type for tensor in moved.model.state_dict().values()} == {"meta"}
    assert torch.equal(made.scores(*histories(made)), near.scores(*histories(near)))


@pytest.mark.parametrize("hybrid", [True, False])
def test_a_changed_ranker_is_a_copy_that_shares_the_tensors(hybrid):
    made = ranker(hybrid)
    before, unit = made.scores(*histories(made)), made.unit_vectors
    changed = made.on(torch.device("cpu")).with_newcomers(NEW, torch.ones(2, 8)).with_recency(COUNTS[::-1].copy())
    assert torch.equal(made.scores(*histories(made)), before)
    assert (len(made.newcomers), made.unit_vectors) == (0, unit)
    assert torch.equal(changed.unit_vectors, torch.cat([unit, torch.full((2, 8), 8**-0.5)]))
    assert changed.scores(*histories(changed)).shape == (4, 12)
    theirs = changed.model.state_dict()
    assert all(tensor.data_ptr() == theirs[name].data_ptr() for name, tensor in made.model.state_dict().items())


def test_repeats_count_events_that_the_encoder_does_not_read():
    short = ranker(hybrid=False)
    facts = {"max_length": 6, "blend": {"repeats": 2.0}}
    longer = Ranker(short.model, facts, {"repeats": repeats.of(9)})
    history = [[8, 8, 1, 2, 3, 4]]
    items, codes = longer.pad(history, history)
    assert items.tolist() == history
    gained = longer.scores(items, codes) - short.scores(*short.pad(history, history))
    expected = 2 * torch.tensor([0, 1, 1, 1, 1, 0, 0, 0, 2, 0]).div(WEAK_SCORE).log1p()
    torch.testing.assert_close(gained, expected[None])


def test_an_item_without_training_has_the_vector_that_it_is_given_everywhere():
    made = ranker(hybrid=False)
    vectors = torch.arange(24.0).reshape(3, 8)
    filled = made.with_newcomers(torch.tensor([4, 10, 11]), vectors)
    assert filled.size == 12
    found = filled.vectors(torch.tensor([[11, 4], [5, 10]]))
    assert torch.equal(found, torch.stack([vectors[[2, 0]], torch.stack([made.item_vectors[5], vectors[1]])]))
    assert torch.equal(filled.unit_vectors[4], torch.nn.functional.normalize(vectors[0], dim=0))
    items, types = histories(made)
    items, types = items[:2], types[:2]  # the others have no known item
    with torch.inference_mode():
        users = made.model.user_vectors(items, types)
    expected = made.scores(items, types).clone()
    expected[:, 4] = users @ vectors[0]
    torch.testing.assert_close(filled.scores(items, types)[:, :10], expected)
    torch.testing.assert_close(filled.scores(items, types)[:, 10:], users @ vectors[1:].T)
    wanted = torch.tensor([[4, 1], [10, 4]])
    torch.testing.assert_close(
        filled.scores_of(wanted, filled.query(items, types)), filled.scores(items, types).gather(1, wanted)
    )


def histories(made):
    return made.pad([[1, 2, 3], [5], [], [77]], [[1, 1, 5], [2], [], [1]])  # 77 is not in the catalogue yet


def test_a_hybrid_is_the_blend_of_logits_evidence_and_recency():
    made = ranker(hybrid=True)
    items, types = histories(made)
    with torch.inference_mode():
        logits = made.model.user_vectors(items, types) @ made.item_vectors.T
        parts = {name: (part.scores(items).clamp(min=0) / 0.01 + 1).log() for name, part in made.neighbours.items()}
        expected = blended(logits, {**parts, "recency": recency_scores(COUNTS)}, WEIGHTS)
    assert torch.allclose(made.scores(items, types)[:2, 1:], expected[:2, 1:], atol=1e-5)


def test_recency_can_be_the_only_blended_part_and_is_not_in_the_model_alone():
    made = Ranker(ranker(hybrid=False).model, {"blend": {"recency": 0.5}}).with_recency(COUNTS)
    items, types = histories(made)
    alone = made.without_blend().with_recency(COUNTS)
    told = made.scores(items, types) - alone.scores(items, types)
    assert torch.allclose(told[:2, 1:], 0.5 * recency_scores(COUNTS)[1:].expand(2, -1), atol=1e-5)


@pytest.mark.parametrize("hybrid", [True, False])
def test_without_a_known_history_recency_ranks_alone(hybrid):
    made = ranker(hybrid)
    scores = made.scores(*histories(made))[2:, 1:]
    assert torch.allclose(scores, recency_scores(COUNTS)[1:].expand(2, -1))


def test_a_model_alone_scores_by_the_product_of_its_vectors():
    made = ranker(hybrid=False)
    items, types = histories(made)
    with torch.inference_mode():
        expected = made.model.user_vectors(items, types) @ made.item_vectors.T
    assert torch.allclose(made.scores(items, types)[:2], expected[:2], atol=1e-6)


@pytest.mark.parametrize("hybrid", [True, False])
def test_candidates_are_the_best_items_that_are_allowed_and_not_blocked(hybrid):
    made = ranker(hybrid)
    items, types = histories(made)
    allowed = torch.ones(10, dtype=torch.bool)
    allowed[[3, 4]] = False
    blocked = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 8, 4, 500])
    candidates = Candidates(made, allowed)
    scores, best = candidates.best(candidates.query(made.query(items, types)), blocked, 8)
    expected = made.scores(items, types).clone()
    expected[:, [0, 3, 4]] = -torch.inf
    expected[0, [1, 8]] = -torch.inf
    order = expected.sort(dim=1, descending=True, stable=True)
    reached = order.values[:, :8] > -torch.inf
    assert torch.equal(best, torch.where(reached, order.indices[:, :8], 0))
    assert torch.allclose(scores, order.values[:, :8], atol=1e-5)


@pytest.mark.parametrize("hybrid", [True, False])
def test_scores_of_some_items_equal_those_from_scoring_all_items(hybrid):
    made = ranker(hybrid).with_newcomers(NEW, torch.ones(2, 8)).with_recency(COUNTS)
    items, types = histories(made)
    wanted = torch.tensor([[1, 9, 0], [4, 10, 11], [2, 3, 4], [5, 5, 11]])
    expected = made.scores(items, types).gather(1, wanted)
    torch.testing.assert_close(made.scores_of(wanted, made.query(items, types)), expected)


def test_without_allowed_items_there_are_no_candidates():
    made = ranker(hybrid=True)
    items, types = histories(made)
    none = torch.empty(0, dtype=torch.int64)
    candidates = Candidates(made, torch.zeros(10, dtype=torch.bool))
    _, best = candidates.best(candidates.query(made.query(items, types)), (none, none), 3)
    assert best.tolist() == [[0, 0, 0]] * 4
