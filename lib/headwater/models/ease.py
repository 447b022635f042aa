"""EASE: the linear item-to-item model that best reconstructs each item from the others (Steck, 2019), in closed form.

With X the binary rows × items and P = (XᵀX + λI)⁻¹, its weights are B = I - P · diag(P)⁻¹. In the paper a row is a whole
history; in training it is a piece of one, overlapping the next by one event (``snapshot.windows``), because the cost of XᵀX
grows with the square of the row length. The model inverts a dense items × items matrix, so of a catalogue beyond ``MAX_ITEMS``
only the most frequent items are fitted. A dense B is too large for a look-up, so each row keeps its ``KEPT`` largest weights by
absolute value.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from headwater.models.histories import incidence
from headwater.models.neighbours import Neighbours

MAX_ITEMS = 16_384
"""The most items that are fitted: a matrix of 1 GiB, and about three of them during the inversion."""
KEPT = 100
RIDGE = 100.0


def fit(sequences: np.ndarray, n_items: int, ridge: float = RIDGE, kept: int = KEPT) -> Neighbours:
    """EASE of int sequences ``[rows, seq]``, left-padded with 0; the order of events does not count."""
    occurrences = incidence(sequences, n_items)
    counts = np.bincount(occurrences.indices, minlength=n_items + 1)
    chosen = np.sort(np.argsort(-counts, kind="stable")[: min(MAX_ITEMS, int((counts > 0).sum()))])
    part = occurrences[:, chosen]
    gram = torch.from_numpy((part.T @ part).toarray())
    gram.diagonal().add_(ridge)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    del gram
    weights = inverse.div_(-inverse.diagonal().clone())
    weights.fill_diagonal_(0.0)
    largest = weights.abs().topk(min(kept, len(chosen)), dim=1).indices
    values = weights.gather(1, largest).numpy()
    kept_cells = (values.ravel(), (np.repeat(chosen, values.shape[1]), chosen[largest.numpy()].ravel()))
    matrix = sparse.csr_matrix(kept_cells, shape=(n_items + 1, n_items + 1), dtype=np.float32)
    matrix.eliminate_zeros()
    return Neighbours(matrix, window=sequences.shape[1], decay=1.0)
