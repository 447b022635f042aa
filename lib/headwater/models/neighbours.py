"""Item-to-item neighbours as a sparse matrix, and the scores that it gives a history: the collaborative part of a hybrid.

The scores add a few cells to the product of user and item vectors, so scoring a user costs one product and one sparse look-up,
however the matrix was learned (``models.transitions``, ``models.ease``, ``models.als``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

WEAK_SCORE = 0.01
"""A score that is weak evidence: one transition in a hundred."""


@dataclass(frozen=True)
class Neighbours:
    """``matrix``: CSR float32 ``[n_items + 1, n_items + 1]``, row and column 0 empty, column indices sorted; row i scores the
    items that go with item i.

    The score of a history is the weighted sum of the rows of its last ``window`` events: the newest has weight 1, each older one
    the weight of the next newer times ``decay``; every ``half_life`` days of age halve it. The weights of an item that occurs
    several times sum to ``most`` at most.

    Methods take histories, ``items`` int64 ``[batch, seq]``, left-padded, newest last, and ``ages`` of the same shape, the days
    of each event before the newest (``context.ages``); None, if no age is known, makes all 0.
    """

    matrix: sparse.csr_matrix
    window: int
    decay: float
    most: float = 1.0
    half_life: float = math.inf

    def __post_init__(self) -> None:
        if not self.matrix.has_sorted_indices:
            object.__setattr__(self, "matrix", self.matrix.sorted_indices())

    def scores(self, items: Tensor, ages: Tensor | None = None) -> Tensor:
        """Scores ``[batch, n_items + 1]`` of histories."""
        return torch.from_numpy(self.sparse_scores(items, ages).toarray())

    def sparse_scores(self, items: Tensor, ages: Tensor | None = None) -> sparse.csr_matrix:
        """The same as a sparse matrix: a row has cells only for items that go with its last few events."""
        return self._item_weights(items, ages) @ self.matrix

    def _item_weights(self, items: Tensor, ages: Tensor | None) -> sparse.csr_matrix:
        """The weight of each item of a history, ``[batch, n_items + 1]``."""
        recent, weights = self._weights(items, ages)
        rows = np.repeat(np.arange(len(recent)), recent.shape[1])
        weights_by_item = sparse.csr_matrix(
            (weights.ravel(), (rows, recent.ravel())), shape=(len(recent), self.matrix.shape[0])
        )
        weights_by_item.data = np.minimum(weights_by_item.data, np.float32(self.most))
        return weights_by_item

    def _weights(self, items: Tensor, ages: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        """The last ``window`` items, and the weight of each by its place and age alone: ``[batch, events]``."""
        recent = items[:, -self.window :].numpy()
        weights = np.where(recent > 0, self.decay ** np.arange(recent.shape[1] - 1, -1, -1), 0.0)
        if ages is not None and math.isfinite(self.half_life):
            weights *= 0.5 ** (ages[:, -self.window :].numpy() / self.half_life)
        return recent, weights.astype(np.float32)

    def evidence(self, items: Tensor, ages: Tensor | None = None) -> sparse.csr_matrix:
        """log(1 + score / ``WEAK_SCORE``), which a hybrid adds to the logits: 0 where the score is 0 or below."""
        found = self.sparse_scores(items, ages)
        found.data = _log_evidence(found.data)
        return found

    def traces(self, items: Tensor, wanted: Tensor) -> Tensor:
        """The cells of a few ``wanted`` items, int64 ``[batch, n]``, in the rows of a history's last ``window`` + 1 events:
        ``[batch, events, n]``. The additional event allows one of them to be left out; an item beyond the matrix has 0."""
        recent = items[:, -self.window - 1 :].numpy()
        user, event = recent.nonzero()
        columns = wanted.numpy()[user]  # [real events, n]
        known = columns < self.matrix.shape[1]
        rows = recent[user, event].repeat(columns.shape[1])
        cells = self._cells(rows, np.where(known, columns, 0).ravel())  # column 0 is empty
        found = np.zeros((*recent.shape, columns.shape[1]), np.float32)
        found[user, event] = cells.reshape(columns.shape)
        return torch.from_numpy(found)

    def evidence_of(self, items: Tensor, traces: Tensor, ages: Tensor | None = None) -> Tensor:
        """The evidence for items with these ``traces`` in the histories, ``[batch, n]``."""
        recent, weights = (torch.from_numpy(part) for part in self._weights(items, ages))
        if np.isfinite(self.most):
            same = (recent.unsqueeze(1) == recent.unsqueeze(2)).float()  # [batch, events, events]
            weights = weights / ((same @ weights.unsqueeze(2)).squeeze(2) / self.most).clamp(min=1)
        found = (weights.unsqueeze(1) @ traces[:, -weights.shape[1] :]).squeeze(1)
        return torch.from_numpy(_log_evidence(found.numpy()))

    def _cells(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Single cells of the matrix, by binary search within rows: SciPy's own look-up passes over the whole matrix first.

        In the row of each cell, all columns before ``low`` are smaller than the wanted one, and none from ``high`` on is. A row
        of n cells is halved n.bit_length() times; then ``low`` is the position of the column, or where it would be inserted.
        """
        start, indices, data = self.matrix.indptr, self.matrix.indices, self.matrix.data
        if not len(data):
            return np.zeros(len(rows), np.float32)
        low, high = start[rows], start[rows + 1]
        end, last = high, len(data) - 1
        for _ in range(int((high - low).max(initial=0)).bit_length()):
            middle = low + (high - low) // 2
            further = (low < high) & (indices[np.minimum(middle, last)] < columns)
            high = np.where(further, high, middle)
            low = np.where(further, middle + 1, low)
        place = np.minimum(low, last)
        return np.where((low < end) & (indices[place] == columns), data[place], np.float32(0))


@dataclass(frozen=True)
class Evidence:
    """The weighted evidence of a hybrid's neighbours for histories and ``ages`` (``Neighbours``), over ``size`` items.

    The whole catalogue is passed over only once, and only on demand.
    """

    parts: tuple[tuple[Neighbours, float], ...]
    history: Tensor
    ages: Tensor
    size: int

    @cached_property
    def cells(self) -> sparse.csr_matrix | None:
        """The evidence for all items, ``[batch, size]``; None without neighbours."""
        if not self.parts:
            return None
        cells = reduce(
            add, (part.evidence(self.history, self.ages) * np.float32(weight) for part, weight in self.parts)
        )
        cells.resize((len(self.history), self.size))  # newcomers have no neighbours yet
        return cells

    def traces(self, wanted: Tensor) -> list[Tensor]:
        """For each part the traces of a few ``wanted`` items, int64 ``[batch, n]`` (``Neighbours.traces``)."""
        return [part.traces(self.history, wanted) for part, _ in self.parts]

    def of(self, traces: Sequence[Tensor]) -> Tensor | float:
        """The evidence for the items with these ``traces``, ``[batch, n]``; 0 without neighbours."""
        return sum(
            part.evidence_of(self.history, trace, self.ages) * weight
            for (part, weight), trace in zip(self.parts, traces, strict=True)
        )


def _log_evidence(scores: np.ndarray) -> np.ndarray:
    return torch.from_numpy(scores).clamp(min=0).div_(WEAK_SCORE).log1p_().numpy()
