"""Item-to-item transitions: which items followed an item soon, a sparse matrix that needs no training.

For each pair of events of one sequence at most ``WINDOW`` steps apart the later item gains 1 / gap; rows are scaled to
sum to one. As a score, the rows of a user's last few items are added, each older one counting half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

WINDOW = 5
DECAY = 0.5


@dataclass(frozen=True)
class Transitions:
    """``matrix``: CSR float32 ``[n_items + 1, n_items + 1]``, rows summing to one or zero."""

    matrix: sparse.csr_matrix

    def scores(self, items: Tensor) -> Tensor:
        """Scores ``[batch, n_items + 1]`` of histories int64 ``[batch, seq]`` (left-padded, newest last)."""
        return torch.from_numpy(self.sparse_scores(items).toarray())

    def sparse_scores(self, items: Tensor) -> sparse.csr_matrix:
        """The same, only what is not zero: a row has as many as followed the last few items."""
        recent = items[:, -WINDOW:].numpy()
        age = np.arange(recent.shape[1] - 1, -1, -1)
        weights = np.where(recent > 0, DECAY**age, 0.0).astype(np.float32)
        rows = np.repeat(np.arange(len(recent)), recent.shape[1])
        picked = sparse.csr_matrix((weights.ravel(), (rows, recent.ravel())), shape=(len(recent), self.matrix.shape[0]))
        return picked @ self.matrix

    def grown(self, n_items: int) -> Transitions:
        """The same transitions for a catalogue that has grown to ``n_items``; new items have none yet."""
        matrix = self.matrix.copy()
        matrix.resize(n_items + 1, n_items + 1)
        return Transitions(matrix)


def count(sequences: np.ndarray, n_items: int) -> Transitions:
    """Transitions of int sequences ``[rows, seq]``, left-padded with 0."""
    return Transitions(shares(gaps(sequences, n_items)))


def gaps(sequences: np.ndarray, n_items: int) -> sparse.csr_matrix:
    """What followed each item, 1 / gap for each time: CSR float32 ``[n_items + 1, n_items + 1]``."""
    shape = (n_items + 1, n_items + 1)
    total = sparse.csr_matrix(shape, dtype=np.float32)
    for gap in range(1, min(WINDOW, sequences.shape[1] - 1) + 1):
        before, after = sequences[:, :-gap].ravel(), sequences[:, gap:].ravel()
        real = (before > 0) & (after > 0) & (before != after)
        ones = np.full(int(real.sum()), 1 / gap, dtype=np.float32)
        total = total + sparse.csr_matrix((ones, (before[real], after[real])), shape=shape)
    return total


def shares(total: sparse.csr_matrix) -> sparse.csr_matrix:
    """The same, rows summing to one or zero."""
    sums = np.asarray(total.sum(axis=1)).ravel()
    scale = sparse.diags(np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0).astype(np.float32))
    return (scale @ total).tocsr().astype(np.float32)
