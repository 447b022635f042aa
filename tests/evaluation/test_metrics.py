"""Metrics by arithmetic, and against RecTools where the definitions agree."""

import numpy as np
import pandas as pd
import pytest

from headwater.evaluation import metrics
from headwater.evaluation.ranking import UNRANKED

RANKS = [np.array([1, 4]), np.array([3]), np.array([11]), np.array([UNRANKED]), np.array([2, 3, UNRANKED])]


def test_hit_rate_is_one_if_any_target_is_in_the_list():
    np.testing.assert_array_equal(metrics.hit_rate(RANKS, 3), [1, 1, 0, 0, 1])


def test_ndcg_divides_by_the_ideal_list_of_as_many_targets():
    first, third = metrics.ndcg(RANKS, 5)[[0, 4]]
    assert first == pytest.approx((1 + 1 / np.log2(5)) / (1 + 1 / np.log2(3)))
    assert third == pytest.approx((1 / np.log2(3) + 1 / np.log2(4)) / (1 + 1 / np.log2(3) + 1 / np.log2(4)))


def test_mrr_counts_the_first_target_only():
    np.testing.assert_allclose(metrics.mrr(RANKS, 10), [1, 1 / 3, 0, 0, 1 / 2])


def test_coverage_novelty_and_diversity_by_hand():
    lists = np.array([[1, 2], [1, 0]])
    assert metrics.coverage(lists, 4) == 0.5
    counts = np.array([0.0, 2.0, 1.0, 1.0])
    assert metrics.novelty(lists, counts) == pytest.approx((1 + 2 + 1) / 3)
    unit = np.array([[0.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    assert metrics.diversity(lists, unit) == pytest.approx(0.4)
    assert metrics.diversity(np.array([[1, 0]]), unit) == 0.0


def test_metrics_agree_with_rectools():
    """RecTools normalises NDCG by an ideal list of k targets, whatever their number, so it is compared with k targets each."""
    from rectools import Columns
    from rectools.metrics import MRR, NDCG, CatalogCoverage, HitRate

    rng = np.random.default_rng(0)
    k, users, items = 5, 40, 30
    lists = np.array([rng.permutation(items)[:k] + 1 for _ in range(users)])
    targets = [rng.permutation(items)[:k] + 1 for _ in range(users)]
    shown = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(users), k),
            Columns.Item: lists.ravel(),
            Columns.Rank: np.tile(np.arange(1, k + 1), users),
        }
    )
    acted = pd.DataFrame({Columns.User: np.repeat(np.arange(users), k), Columns.Item: np.concatenate(targets)})
    ranks = [
        np.sort([int(np.flatnonzero(row == item)[0]) + 1 if item in row else UNRANKED for item in target])
        for row, target in zip(lists, targets, strict=True)
    ]
    assert metrics.hit_rate(ranks, k).mean() == pytest.approx(HitRate(k=k).calc(shown, acted))
    assert metrics.mrr(ranks, k).mean() == pytest.approx(MRR(k=k).calc(shown, acted))
    assert metrics.ndcg(ranks, k).mean() == pytest.approx(NDCG(k=k).calc(shown, acted))
    catalogue = np.arange(1, items + 1)
    assert metrics.coverage(lists, items) == pytest.approx(CatalogCoverage(k=k, normalize=True).calc(shown, catalogue))
