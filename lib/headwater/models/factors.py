"""Initial item vectors from co-occurrence, for a training to start from instead of random ones.

They are the factors of a shifted, positive pointwise mutual information matrix (Levy and Goldberg, Neural Word Embedding as
Implicit Matrix Factorization, 2014) and take seconds, where a model would need its first dozens of epochs.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from headwater.models.transitions import gaps

SMOOTHING = 0.75
"""Power of an item's frequency as context, so that rare items do not look surprising everywhere."""
OVERSAMPLED, ITERATIONS = 16, 4
"""Extra columns and power iterations of the randomised decomposition (Halko, Martinsson and Tropp, 2011)."""


def item_vectors(sequences: np.ndarray, n_items: int, dim: int, seed: int) -> Tensor:
    """Vectors float32 ``[n_items + 1, dim]`` from int sequences ``[rows, seq]``, left-padded with 0.

    Their entries have a spread of 1 over the items that occur; an item that never occurs near another is zero. They are
    turned by a random rotation, so that no dimension, and so no attention head, starts with all of the weight.
    """
    vectors = torch.zeros(n_items + 1, dim)
    counted = gaps(sequences, n_items)
    counted = (counted + counted.T).tocoo()
    if counted.nnz == 0:
        return vectors
    often = np.asarray(counted.tocsr().sum(axis=1)).ravel()
    context = often**SMOOTHING
    surprise = np.log1p(counted.data * context.sum() / (often[counted.row] * context[counted.col]))
    surprise = sparse.csr_matrix((surprise, (counted.row, counted.col)), shape=counted.shape, dtype=np.float32)
    left, values, right = randomized_svd(
        (surprise + surprise.T) / 2,
        min(dim + OVERSAMPLED, n_items + 1),
        n_oversamples=0,
        n_iter=ITERATIONS,
        random_state=seed,
    )
    alike = (left * right.T).sum(axis=0) > 0  # where it is not, the eigenvalue is negative: neighbours are set apart
    kept = np.flatnonzero(alike)[:dim]
    vectors[:, : len(kept)] = torch.from_numpy(left[:, kept] * np.sqrt(values[kept]))
    turn, _ = torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed)))
    vectors = vectors @ turn
    occurs = torch.from_numpy(often > 0)
    return vectors / vectors[occurs].std(correction=0).clamp(min=1e-6) * occurs.unsqueeze(1)
