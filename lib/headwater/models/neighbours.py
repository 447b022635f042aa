"""What goes with an item, as a sparse matrix, and how a history is read through it: the collaborative part of a hybrid.

Such a part adds a few cells to the product of user and item vectors, so that scoring a user costs one product and one
sparse look-up, however it was learned (``models.transitions``, ``models.ease``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

FAINT = 0.01
"""A score that is hardly evidence: one of a hundred steps went there."""


@dataclass(frozen=True)
class Neighbours:
    """``matrix``: CSR float32 ``[n_items + 1, n_items + 1]``, row and column 0 empty; row i says what goes with item i, in
    the order of items.

    The rows of a user's last ``window`` events are added up, the newest with weight 1, each older one times ``decay``.
    However often an item comes, it weighs 1 at most.
    """

    matrix: sparse.csr_matrix
    window: int
    decay: float

    def __post_init__(self) -> None:
        if not self.matrix.has_sorted_indices:
            object.__setattr__(self, "matrix", self.matrix.sorted_indices())

    def scores(self, items: Tensor) -> Tensor:
        """Scores ``[batch, n_items + 1]`` of histories int64 ``[batch, seq]`` (left-padded, newest last)."""
        return torch.from_numpy(self.sparse_scores(items).toarray())

    def sparse_scores(self, items: Tensor) -> sparse.csr_matrix:
        """The same, only what is not zero: a row has as many as go with the last few items."""
        return self._picked(items) @ self.matrix

    def _picked(self, items: Tensor) -> sparse.csr_matrix:
        """How much each item of a history counts, ``[batch, n_items + 1]``."""
        recent = items[:, -self.window :].numpy()
        age = np.arange(recent.shape[1] - 1, -1, -1)
        weights = np.where(recent > 0, self.decay**age, 0.0).astype(np.float32)
        rows = np.repeat(np.arange(len(recent)), recent.shape[1])
        picked = sparse.csr_matrix((weights.ravel(), (rows, recent.ravel())), shape=(len(recent), self.matrix.shape[0]))
        picked.data = np.minimum(picked.data, np.float32(1))
        return picked

    def evidence(self, items: Tensor) -> sparse.csr_matrix:
        """log(1 + score / ``FAINT``), what a hybrid adds to logits: zero where nothing goes with the history, or less."""
        found = self.sparse_scores(items)
        found.data = _log_evidence(found.data)
        return found

    def evidence_of(self, items: Tensor, wanted: Tensor) -> Tensor:
        """The evidence for a few ``wanted`` items of each history, int64 ``[batch, n]``, items beyond the matrix included:
        ``[batch, n]``. A row of the matrix is looked into at ``n`` places instead of being added up whole."""
        picked, places = self._picked(items), wanted.numpy()
        asked = places.repeat(np.diff(picked.indptr), axis=0)  # [events, n]
        known = asked < self.matrix.shape[1]
        rows = picked.indices.repeat(asked.shape[1])
        cells = self._cells(rows, np.where(known, asked, 0).ravel()).reshape(asked.shape)  # column 0 is empty
        own = sparse.csr_matrix((picked.data, np.arange(len(asked)), picked.indptr), shape=(len(items), len(asked)))
        return torch.from_numpy(_log_evidence(own @ cells))

    def _cells(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Single cells of the matrix, by bisection of rows: scipy's own look-up goes through the whole matrix first."""
        start, indices, data = self.matrix.indptr, self.matrix.indices, self.matrix.data
        if not len(data):
            return np.zeros(len(rows), np.float32)
        low, high = start[rows], start[rows + 1]
        end, last = high, len(data) - 1
        for _ in range(int((high - low).max(initial=0)).bit_length()):
            middle = low + (high - low) // 2
            further = (low < high) & (indices[np.minimum(middle, last)] < columns)
            high = np.where(further | (low == high), high, middle)
            low = np.where(further, middle + 1, low)
        place = np.minimum(low, last)
        return np.where((low < end) & (indices[place] == columns), data[place], np.float32(0))

    def grown(self, n_items: int) -> Neighbours:
        """The same for a catalogue that has grown to ``n_items``; nothing goes with new items yet."""
        matrix = self.matrix.copy()
        matrix.resize(n_items + 1, n_items + 1)
        return Neighbours(matrix, self.window, self.decay)


@dataclass(frozen=True)
class Evidence:
    """What a hybrid's neighbours, each with its weight, say of histories int64 ``[batch, seq]``, for ``size`` items.

    The whole catalogue is gone through once, and only when somebody asks for it.
    """

    parts: tuple[tuple[Neighbours, float], ...]
    history: Tensor
    size: int

    @cached_property
    def cells(self) -> sparse.csr_matrix | None:
        """For all items, ``[batch, size]``; None without neighbours."""
        if not self.parts:
            return None
        cells = sum(part.evidence(self.history) * np.float32(weight) for part, weight in self.parts)
        cells.resize((len(self.history), self.size))  # newcomers followed nothing yet
        return cells

    def of(self, wanted: Tensor) -> Tensor:
        """For a few items of each history, int64 ``[batch, n]``: ``[batch, n]``."""
        found = torch.zeros(wanted.shape)
        for part, weight in self.parts:
            found += part.evidence_of(self.history, wanted) * weight
        return found


def _log_evidence(scores: np.ndarray) -> np.ndarray:
    return np.log1p(np.maximum(scores, 0) / np.float32(FAINT))
