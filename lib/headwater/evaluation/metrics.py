"""Ranking metrics, one value a user, and list metrics, one value a model. Ranks count from 1."""

from __future__ import annotations

import numpy as np


def hit_rate(ranks: list[np.ndarray], k: int) -> np.ndarray:
    """1 where any target is among the first ``k``, ``[users]``."""
    return np.array([float((r <= k).any()) for r in ranks])


def ndcg(ranks: list[np.ndarray], k: int) -> np.ndarray:
    """Binary NDCG@k (Järvelin & Kekäläinen, 2002), ``[users]``: gains 1 / log2(rank + 1) over those of the best list."""
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
    """Mean self-information of what is listed, in bits: -log2 of an item's share of all events (Zhou et al., 2010).

    ``counts`` ``[items + 1]`` are events before the cut; an item without any counts as having one.
    """
    share = np.maximum(counts, 1) / max(counts.sum(), 1)
    listed = lists[lists > 0]
    return float(-np.log2(share[listed]).mean()) if len(listed) else 0.0


def diversity(lists: np.ndarray, unit: np.ndarray) -> float:
    """Intra-list diversity: one minus the mean cosine of two different items of a list, averaged over users.

    ``unit`` ``[items + 1, dim]`` are item vectors of length 1; lists with fewer than two items are left out.
    """
    values = []
    for items in lists:
        items = items[items > 0]
        if len(items) > 1:
            cosines = unit[items] @ unit[items].T
            pairs = len(items) * (len(items) - 1)
            values.append(1 - (cosines.sum() - np.trace(cosines)) / pairs)
    return float(np.mean(values)) if values else 0.0
