"""A user's own mix of categories, and how closely lists follow it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from headwater.models.variety import Mix
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.users import Steps

MAX_CATEGORIES = 20
"""The number of categories kept per user, the most frequent ones."""
SMOOTHING = 0.01
"""Steck's α: the share of the user's own mix that is added to that of a list, so that a missing category has a finite cost."""


@dataclass(frozen=True)
class Taste:
    """``categories`` int64 ``[users, most]``, the most frequent first, 0 is none, and their ``shares``, float32, which sum to
    one, or to zero if a history has no category."""

    categories: np.ndarray
    shares: np.ndarray

    def of(self, users: np.ndarray) -> Taste:
        """The mix of some users, given by a mask or by positions."""
        return Taste(self.categories[users], self.shares[users])


def mix(steps: Steps, catalogue: Catalogue) -> Taste:
    """The mix of each history: every event has weight one, in equal parts for each category of its item. Ties go to the
    category whose name sorts first."""
    n_users, n_names = len(steps.count()), len(catalogue.names)
    codes = catalogue.categories[np.where(steps.item < len(catalogue.categories), steps.item, 0)]  # [steps, each]
    each = 1.0 / np.maximum((codes > 0).sum(axis=1), 1)
    place, column = np.nonzero(codes)
    key = steps.user[place] * n_names + codes[place, column]
    pairs, inverse = np.unique(key, return_inverse=True)
    weight = np.bincount(inverse, weights=each[place], minlength=len(pairs))
    user, code = pairs // n_names, pairs % n_names
    order = np.lexsort((code, -weight, user))
    user, code, weight = user[order], code[order], weight[order]
    rank = np.arange(len(user)) - np.searchsorted(user, user)
    kept = rank < MAX_CATEGORIES
    shape = (n_users, MAX_CATEGORIES)
    categories, shares = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    categories[user[kept], rank[kept]], shares[user[kept], rank[kept]] = code[kept], weight[kept]
    return Taste(categories, shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9))


def miscalibration(own: Taste, items: np.ndarray, catalogue: Catalogue) -> np.ndarray:
    """The distance of lists int64 ``[users, n]``, 0 is none, from their users' ``own`` mix, ``[users]``; NaN for a user or a list
    without categories.

    It is the C_KL of Steck (Calibrated Recommendations, 2018) in nats: Σ p · log(p / q̃) over the user's categories, where p is
    their share of the history, q their share of the list, and q̃ = (1 - α) q + α p with α = ``SMOOTHING``. An item counts in
    equal parts for each of its categories.
    """
    codes = catalogue.categories[items]  # [users, n, each]
    counted = (codes > 0).any(axis=2).sum(axis=1)
    membership = Mix(torch.from_numpy(own.categories), torch.from_numpy(own.shares)).membership(torch.from_numpy(codes))
    listed = membership.sum(dim=1).numpy() / np.maximum(counted, 1)[:, None]  # [users, most]
    share = own.shares.astype(np.float64)
    ratio = share / np.where(share > 0, (1 - SMOOTHING) * listed + SMOOTHING * share, 1.0)
    distance = (share * np.log(np.where(share > 0, ratio, 1.0))).sum(axis=1)
    return np.where((counted > 0) & (share.sum(axis=1) > 0), distance, np.nan)
