"""Initial item vectors from co-occurrence, as a better start of training than random ones.

They are the factors of a shifted, positive pointwise mutual information matrix (Levy and Goldberg, Neural Word Embedding as
Implicit Matrix Factorization, 2014). They take seconds to compute; a model would need its first dozens of epochs to get there.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from headwater.models.transitions import inverse_gaps

SMOOTHING = 0.75
"""Exponent of an item's frequency as context, so that rare items do not look surprising everywhere."""
OVERSAMPLED, ITERATIONS = 16, 4
"""Extra columns and power iterations of the randomised SVD (Halko, Martinsson and Tropp, 2011)."""


def item_vectors(sequences: np.ndarray, n_items: int, dim: int, seed: int) -> Tensor:
    """Vectors float32 ``[n_items + 1, dim]`` from int sequences ``[rows, seq]``, left-padded with 0.

    Their entries have a standard deviation of 1 over the items that occur; an item that never occurs near another has a zero
    vector. A random rotation spreads the weight, so that no dimension, and so no attention head, starts with all of it.
    """
    vectors = torch.zeros(n_items + 1, dim)
    cooccurrences = inverse_gaps(sequences, n_items)
    cooccurrences = (cooccurrences + cooccurrences.T).tocoo()
    if cooccurrences.nnz == 0:
        return vectors
    frequency = np.asarray(cooccurrences.tocsr().sum(axis=1)).ravel()
    context = frequency**SMOOTHING
    pmi = np.log1p(cooccurrences.data * context.sum() / (frequency[cooccurrences.row] * context[cooccurrences.col]))
    pmi = sparse.csr_matrix((pmi, (cooccurrences.row, cooccurrences.col)), shape=cooccurrences.shape, dtype=np.float32)
    left, values, right = randomized_svd(
        (pmi + pmi.T) / 2,
        min(dim + OVERSAMPLED, n_items + 1),
        n_oversamples=0,
        n_iter=ITERATIONS,
        random_state=seed,
    )
    positive = (left * right.T).sum(axis=0) > 0  # if False, the eigenvalue is negative and would push neighbours apart
    kept = np.flatnonzero(positive)[:dim]
    vectors[:, : len(kept)] = torch.from_numpy(left[:, kept] * np.sqrt(values[kept]))
    rotation, _ = torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed)))
    vectors = vectors @ rotation
    occurs = torch.from_numpy(frequency > 0)
    return vectors / vectors[occurs].std(correction=0).clamp(min=1e-6) * occurs.unsqueeze(1)
