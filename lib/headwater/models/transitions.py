"""Item-to-item transitions: which items soon follow an item, as a sparse matrix that needs no training.

For each pair of events of a sequence at most ``WINDOW`` steps apart, the later item gains 1 / gap. Rows are scaled to sum to
one, then shares below ``MIN_SHARE`` are dropped: after an item that everybody has, nearly everything follows once, and a row
without larger shares carries no information. The score of a history is the sum of the rows of its last few items, each older one
with half the weight.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from headwater.models.neighbours import Neighbours

WINDOW = 5
DECAY = 0.5
MIN_SHARE = 0.001
"""A tenth of what is weak evidence (``neighbours.WEAK_SCORE``). It limits a row to a thousand cells, for any number of users."""


def count(sequences: np.ndarray, n_items: int) -> Neighbours:
    """Transitions of int sequences ``[rows, seq]``, left-padded with 0."""
    found = shares(inverse_gaps(sequences, n_items))
    found.data[found.data < MIN_SHARE] = 0
    found.eliminate_zeros()
    return Neighbours(found, WINDOW, DECAY)


def inverse_gaps(sequences: np.ndarray, n_items: int) -> sparse.csr_matrix:
    """The sum of 1 / gap over the transitions between each two different items: CSR float32 ``[n_items + 1, n_items + 1]``."""
    shape = (n_items + 1, n_items + 1)
    total = sparse.csr_matrix(shape, dtype=np.float32)
    for gap in range(1, min(WINDOW, sequences.shape[1] - 1) + 1):
        before, after = sequences[:, :-gap].ravel(), sequences[:, gap:].ravel()
        real = (before > 0) & (after > 0) & (before != after)
        ones = np.full(int(real.sum()), 1 / gap, dtype=np.float32)
        total = total + sparse.csr_matrix((ones, (before[real], after[real])), shape=shape)
    return total


def shares(total: sparse.csr_matrix) -> sparse.csr_matrix:
    """The same with rows scaled to sum to one; empty rows stay empty."""
    sums = np.asarray(total.sum(axis=1)).ravel()
    scale = sparse.diags(np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0).astype(np.float32))
    return (scale @ total).tocsr().astype(np.float32)
