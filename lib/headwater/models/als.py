"""Implicit ALS: factorisation of which row has which item (Hu, Koren and Volinsky, Collaborative Filtering for Implicit Feedback
Datasets, 2008).

Let p be 1 if a row has an item and else 0, with weight 1 + α if it has it and else 1. The factors x of rows and y of items
minimise the weighted sum of (p - x · y)² plus λ(|x|² + |y|²). With one side fixed, each factor of the other solves a linear
system: x = (YᵀY + α Σ y yᵀ + λI)⁻¹ (1 + α) Σ y, summed over the items of the row.

A model that sums the contributions of items needs no user factors: row i of its weights is Y x for a history of item i alone,
which is (1 + α) Y z / (1 + α y · z) with z = (YᵀY + λI)⁻¹ y. Each row keeps its ``KEPT`` largest weights, found tile by tile.
Because it needs no items × items matrix, it covers all items of a catalogue of which ``ease`` leaves most out. Its time still
grows with the square of the catalogue: ``FACTORS`` multiplications for each pair of items, 200 CPU seconds for 100,000 items, so
some five hours for a million.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from headwater.models.histories import incidence
from headwater.models.neighbours import Neighbours

FACTORS = 256
ALPHA = 40.0
RIDGE = 10.0
ROUNDS = 10
"""How often the factors of rows and then those of items are solved."""
KEPT = 100
CELLS = 1 << 22
"""Numbers held at once, 16 MiB: factors gathered for a batch of rows, and a tile of items × items."""


def fit(
    sequences: np.ndarray,
    n_items: int,
    factors: int = FACTORS,
    alpha: float = ALPHA,
    ridge: float = RIDGE,
    kept: int = KEPT,
) -> Neighbours:
    """ALS of int sequences ``[rows, seq]``, left-padded with 0; neither the order nor the number of an item's events counts."""
    occurrences = incidence(sequences, n_items)
    chosen = np.flatnonzero(np.bincount(occurrences.indices, minlength=n_items + 1))
    items = item_factors(occurrences[:, chosen], factors, alpha, ridge)
    found = (
        (chosen[rows], chosen[columns], weights)
        for rows, columns, weights in largest_weights(items, alpha, ridge, kept)
    )
    rows, columns, weights = (np.concatenate(each) for each in zip(*found, strict=True)) if len(chosen) else 3 * [[]]
    matrix = sparse.csr_matrix((weights, (rows, columns)), shape=(n_items + 1, n_items + 1), dtype=np.float32)
    return Neighbours(matrix, window=sequences.shape[1], decay=1.0)


def item_factors(occurrences: sparse.csr_matrix, factors: int, alpha: float, ridge: float) -> Tensor:
    """Item factors float32 ``[items, factors]`` of a CSR matrix of ones ``[rows, items]``, from a fixed seed."""
    by_item = occurrences.T.tocsr()
    items = torch.randn(occurrences.shape[1], factors, generator=torch.Generator().manual_seed(1)) / 10 / factors**0.5
    for _ in range(ROUNDS):
        items = solve_factors(by_item, solve_factors(occurrences, items, alpha, ridge), alpha, ridge)
    return items


def solve_factors(occurrences: sparse.csr_matrix, others: Tensor, alpha: float, ridge: float) -> Tensor:
    """The best factors ``[rows, factors]`` given those of the columns, ``[columns, factors]``.

    They are rotated to where YᵀY is diagonal and back: a row with fewer columns than there are factors then needs only a system
    as large as its number of columns (Woodbury).
    """
    values, rotation = torch.linalg.eigh(others.T @ others)
    base = (values.clamp(min=0) + ridge) / alpha
    rotated = torch.cat([others @ rotation, torch.zeros(1, others.shape[1])])
    found = torch.zeros(occurrences.shape[0], others.shape[1])
    for rows, columns in batches(occurrences, others.shape[1]):
        gathered = rotated[columns]  # [batch, most, factors]
        if columns.shape[1] < others.shape[1]:
            scaled = gathered / base
            system = scaled @ gathered.mT
            system.diagonal(dim1=1, dim2=2).add_(1.0)  # [batch, most, most]
            real = (columns < occurrences.shape[1]).float().unsqueeze(2)
            found[rows] = (torch.cholesky_solve(real, torch.linalg.cholesky(system)).mT @ scaled).squeeze(1)
        else:
            system = gathered.mT @ gathered
            system.diagonal(dim1=1, dim2=2).add_(base)  # [batch, factors, factors]
            total = gathered.sum(1).unsqueeze(2)
            found[rows] = torch.cholesky_solve(total, torch.linalg.cholesky(system)).squeeze(2)
    return found @ rotation.T * ((1 + alpha) / alpha)


def batches(occurrences: sparse.csr_matrix, factors: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Non-empty rows, shortest first, and the columns of each, int64 ``[batch, most]``, padded with the number of columns."""
    lengths = np.diff(occurrences.indptr)
    order = np.argsort(lengths, kind="stable")
    start = int((lengths == 0).sum())
    while start < len(order):
        most = lengths[order[start : start + max(1, CELLS // factors)]]
        cells = np.arange(1, len(most) + 1) * most.astype(np.int64) * factors
        end = start + max(1, int(np.searchsorted(cells, CELLS, side="right")))
        rows, longest = order[start:end], lengths[order[end - 1]]
        columns = np.full((len(rows), longest), occurrences.shape[1], np.int64)
        columns[np.arange(longest) < lengths[rows, None]] = occurrences[rows].indices
        yield torch.from_numpy(rows), torch.from_numpy(columns)
        start = end


def largest_weights(
    items: Tensor, alpha: float, ridge: float, kept: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The ``kept`` largest weights of each row without the item's own, some rows at a time: rows, columns and weights."""
    count, factors = items.shape
    inverse = torch.linalg.inv(items.T @ items + ridge * torch.eye(factors))
    users = items @ inverse
    users = (1 + alpha) * users / (1 + alpha * (users * items).sum(1, keepdim=True))
    size = max(1, CELLS // max(1, count))
    for start in range(0, count, size):
        weights = users[start : start + size] @ items.T  # [size, items]
        rows = torch.arange(len(weights))
        weights[rows, start + rows] = -torch.inf
        values, columns = weights.topk(min(kept, count - 1), dim=1)
        rows = (start + rows).repeat_interleave(values.shape[1])
        yield rows.numpy(), columns.numpy().ravel(), values.numpy().ravel()
