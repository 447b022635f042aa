"""EASE against its closed form, written out in double precision."""

import numpy as np
import torch

from headwater.models import ease

SEQUENCES = np.array([[0, 1, 2, 3], [4, 5, 1, 2], [3, 4, 5, 6], [0, 0, 2, 2], [0, 0, 0, 7]])


def closed_form(ridge):
    bought = np.zeros((len(SEQUENCES), 8))
    for user, items in enumerate(SEQUENCES):
        bought[user, items[items > 0]] = 1
    inverse = np.linalg.inv(bought[:, 1:].T @ bought[:, 1:] + ridge * np.eye(7))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def test_weights_equal_the_closed_form_with_a_zero_diagonal():
    fitted = ease.fit(SEQUENCES, 9, ridge=0.5).matrix.toarray()
    assert fitted.shape == (10, 10)
    np.testing.assert_allclose(fitted[1:8, 1:8], closed_form(0.5), atol=1e-5)
    assert not fitted[[0, 8, 9]].any()  # padding, and items without events
    assert not fitted[:, [0, 8, 9]].any()


def test_a_row_keeps_its_largest_weights():
    whole = closed_form(0.5)
    fitted = ease.fit(SEQUENCES, 9, ridge=0.5, kept=2).matrix.toarray()[1:8, 1:8]
    for row, kept in zip(whole, fitted, strict=True):
        largest = np.argsort(-np.abs(row))[:2]
        np.testing.assert_allclose(kept[largest], row[largest], atol=1e-5)
        assert np.count_nonzero(kept) <= 2


def test_a_large_catalogue_is_fitted_on_its_most_frequent_items(monkeypatch):
    monkeypatch.setattr(ease, "MAX_ITEMS", 2)
    fitted = ease.fit(SEQUENCES, 9, ridge=0.5).matrix
    assert set(fitted.nonzero()[0]) == {1, 2}  # item 2 is in three histories; of those in two, the lowest index wins


def test_scores_use_the_whole_history_and_count_each_item_once():
    fitted = ease.fit(SEQUENCES, 9, ridge=0.5)
    scores = fitted.scores(torch.tensor([[1, 4, 1, 1]]))
    np.testing.assert_allclose(scores[0, 1:8].numpy(), closed_form(0.5)[[0, 3]].sum(0), atol=1e-5)
