"""What goes with an item, as a sparse matrix, and how a history is read through it: the collaborative part of a hybrid.

Such a part adds a few cells to the product of user and item vectors, so that scoring a user costs one product and one
sparse look-up, however it was learned (``models.transitions``, ``models.ease``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

FAINT = 0.01
"""A score that is hardly evidence: one of a hundred steps went there."""


@dataclass(frozen=True)
class Neighbours:
    """``matrix``: CSR float32 ``[n_items + 1, n_items + 1]``, row and column 0 empty; row i says what goes with item i.

    The rows of a user's last ``window`` events are added up, the newest with weight 1, each older one times ``decay``.
    However often an item comes, it weighs 1 at most.
    """

    matrix: sparse.csr_matrix
    window: int
    decay: float

    def scores(self, items: Tensor) -> Tensor:
        """Scores ``[batch, n_items + 1]`` of histories int64 ``[batch, seq]`` (left-padded, newest last)."""
        return torch.from_numpy(self.sparse_scores(items).toarray())

    def sparse_scores(self, items: Tensor) -> sparse.csr_matrix:
        """The same, only what is not zero: a row has as many as go with the last few items."""
        recent = items[:, -self.window :].numpy()
        age = np.arange(recent.shape[1] - 1, -1, -1)
        weights = np.where(recent > 0, self.decay**age, 0.0).astype(np.float32)
        rows = np.repeat(np.arange(len(recent)), recent.shape[1])
        picked = sparse.csr_matrix((weights.ravel(), (rows, recent.ravel())), shape=(len(recent), self.matrix.shape[0]))
        picked.data = np.minimum(picked.data, np.float32(1))
        return picked @ self.matrix

    def evidence(self, items: Tensor) -> sparse.csr_matrix:
        """log(1 + score / ``FAINT``), what a hybrid adds to logits: zero where nothing goes with the history, or less."""
        found = self.sparse_scores(items)
        found.data = np.log1p(np.maximum(found.data, 0) / np.float32(FAINT))
        return found

    def grown(self, n_items: int) -> Neighbours:
        """The same for a catalogue that has grown to ``n_items``; nothing goes with new items yet."""
        matrix = self.matrix.copy()
        matrix.resize(n_items + 1, n_items + 1)
        return Neighbours(matrix, self.window, self.decay)
