"""Ranking metrics, one value per user, and list metrics, one value per set of lists. Ranks count from 1."""

from __future__ import annotations

import numpy as np

CHUNK = 1_024
"""The number of lists whose item vectors are in memory at once."""


def hit_rate(ranks: list[np.ndarray], k: int) -> np.ndarray:
    """1 if any target is among the first ``k``, else 0, ``[users]``."""
    return np.array([float((r <= k).any()) for r in ranks])


def ndcg(ranks: list[np.ndarray], k: int) -> np.ndarray:
    """Binary NDCG@k (Järvelin & Kekäläinen, 2002), ``[users]``: gains 1 / log2(rank + 1), relative to those of the ideal list."""
    return np.array(
        [(1 / np.log2(r[r <= k] + 1.0)).sum() / (1 / np.log2(np.arange(2, min(len(r), k) + 2))).sum() for r in ranks]
    )


def mrr(ranks: list[np.ndarray], k: int) -> np.ndarray:
    """1 / rank of the first target, 0 if that is beyond ``k``, ``[users]``."""
    return np.array([1.0 / r.min() if r.min() <= k else 0.0 for r in ranks])


PER_USER = {"ndcg": ndcg, "hit_rate": hit_rate, "mrr": mrr}


def coverage(lists: np.ndarray, catalogue: int) -> float:
    """Share of ``catalogue`` items that are in any list; lists int ``[users, k]``, 0 is no item."""
    return len(np.setdiff1d(lists, [0])) / catalogue


def novelty(lists: np.ndarray, counts: np.ndarray) -> float:
    """Mean self-information of the listed items, in bits: -log2 of an item's share of all events (Zhou et al., 2010).

    ``counts`` ``[items + 1]`` are events before the cut; an item without events counts as having one.
    """
    share = np.maximum(counts, 1) / max(counts.sum(), 1)
    listed = lists[lists > 0]
    return float(-np.log2(share[listed]).mean()) if len(listed) else 0.0


def diversity(lists: np.ndarray, unit: np.ndarray) -> float:
    """``diversities`` averaged over users; lists with fewer than two items are left out."""
    return mean_known(diversities(lists, unit))


def diversities(lists: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Intra-list diversity, ``[users]``: one minus the mean cosine of two different items of a list, NaN if it has fewer than
    two.

    ``unit`` ``[items + 1, dim]`` are item vectors of length 1. With s their sum over a list, the cosines of all pairs sum to
    |s|² less those of each item with itself.
    """
    values = np.full(len(lists), np.nan)
    for start in range(0, len(lists), CHUNK):
        items = lists[start : start + CHUNK]
        rows = unit[items] * (items > 0)[..., None]  # [users, k, dim]
        cosines = (rows.sum(axis=1, dtype=np.float64) ** 2).sum(axis=1) - (rows**2).sum(axis=(1, 2), dtype=np.float64)
        count = (items > 0).sum(axis=1)
        some = count > 1
        values[start : start + CHUNK][some] = 1 - cosines[some] / (count * (count - 1))[some]
    return values


def mean_known(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; 0 if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0
