"""Implicit ALS against its normal equations, written out in double precision."""

import numpy as np
import pytest
import torch

from headwater.models import als
from headwater.models.histories import incidence

SEQUENCES = np.array([[0, 1, 2, 3], [4, 5, 1, 2], [3, 4, 5, 6], [0, 0, 2, 2], [0, 0, 0, 7]])
ALPHA, RIDGE = 20.0, 0.5


def solve_row(had, others):
    """Factors of one row; ``had``: for each column, whether the row has it."""
    weight = 1 + ALPHA * had
    system = others.T @ (weight[:, None] * others) + RIDGE * np.eye(others.shape[1])
    return np.linalg.solve(system, others.T @ (weight * had))


def dense(factors):
    """Weights of all other items for a history of each single item, computed without tiles."""
    items = als.item_factors(incidence(SEQUENCES, 7)[:, 1:], factors, ALPHA, RIDGE).double().numpy()
    weights = np.array([solve_row(one, items) @ items.T for one in np.eye(7)])
    np.fill_diagonal(weights, 0)
    return weights


@pytest.mark.parametrize("factors", [2, 3, 6])
def test_factors_are_those_of_the_normal_equations(factors):
    had = incidence(SEQUENCES, 9)
    others = torch.randn(10, factors, generator=torch.Generator().manual_seed(3))
    found = als.solve_factors(had, others, ALPHA, RIDGE).numpy()
    expected = [solve_row(row, others.double().numpy()) for row in had.toarray()]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("cells", [1, 1 << 22])
@pytest.mark.parametrize("factors", [2, 6])
def test_a_weight_is_the_score_for_a_history_of_one_item_for_every_tile_size(factors, cells, monkeypatch):
    expected = dense(factors)
    monkeypatch.setattr(als, "CELLS", cells)
    fitted = als.fit(SEQUENCES, 9, factors, ALPHA, RIDGE).matrix.toarray()
    assert fitted.shape == (10, 10)
    np.testing.assert_allclose(fitted[1:8, 1:8], expected, atol=1e-4)
    assert not fitted[[0, 8, 9]].any()  # padding, and items without events
    assert not fitted[:, [0, 8, 9]].any()


def test_a_row_keeps_its_largest_weights():
    fitted = als.fit(SEQUENCES, 9, 3, ALPHA, RIDGE, kept=2).matrix.toarray()[1:8, 1:8]
    whole = dense(3) - 9 * np.eye(7)  # an item's own weight is never kept
    for row, kept in zip(whole, fitted, strict=True):
        largest = np.argsort(-row)[:2]
        assert set(np.flatnonzero(kept)) <= set(largest)
        np.testing.assert_allclose(kept[largest], row[largest], atol=1e-4)


def test_a_history_of_one_kind_of_items_ranks_that_kind_first():
    rng = np.random.default_rng(0)
    kinds = rng.integers(2, size=400)
    sequences = np.array([1 + 20 * kind + rng.choice(20, 6, replace=False) for kind in kinds])
    fitted = als.fit(sequences, 40, factors=2)
    scores = fitted.scores(torch.tensor([[0, 3, 7], [0, 25, 31]])).numpy()
    ten = np.argsort(-scores, axis=1)[:, :10]
    assert (ten[0] <= 20).all()
    assert (ten[1] > 20).all()


def test_fitting_is_deterministic_and_empty_sequences_give_no_weights():
    one, other = (als.fit(SEQUENCES, 9, 3).matrix for _ in range(2))
    assert (one != other).nnz == 0
    assert als.fit(np.zeros((2, 4), np.int64), 9).matrix.nnz == 0
