"""Vectors for items that a model was not trained on, so that one product ranks the whole catalogue."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from headwater.models.ranker import GATHER_BATCH, Ranker
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.newcomers import Newcomers

NOISE = 1e-3
"""Standard deviation of the noise in a newcomer's vector, relative to that of trained vectors. Without noise the newcomers
of a category would be equal, and their order would depend on how a product is rounded."""
PRIOR_EVENTS = 5.0
"""The number of events with a newcomer that weigh as much as its words or categories."""


def of_newcomers(ranker: Ranker, catalogue: Catalogue, length: float = 0.0) -> tuple[Tensor, Tensor]:
    """The newcomers, int64 and ascending: those of ``catalogue.newcomers`` and all above ``ranker.n_items``; and their vectors
    ``[newcomers, dim]``.

    A newcomer's vector is the mean of the items that share words of its title, category and text; without a known word it is the
    centroid of its categories, or of all items where it has none. Each event with it moves the vector towards the items
    around that event, half of the way after ``PRIOR_EVENTS`` events. Vectors from words or events are stretched by ``length``
    (``stretched``).
    """
    known = ranker.n_items + 1
    met = catalogue.newcomers if _is_for(catalogue.newcomers, ranker) else None
    counted = np.empty(0, np.int64) if met is None else met.items[met.items < len(catalogue.available)]
    later = np.arange(max([known, *(counted[-1:] + 1)]), len(catalogue.available))
    items = np.concatenate([counted, later])
    if not len(items):
        return torch.from_numpy(items), ranker.item_vectors[:0]
    vectors = _centroids(ranker, catalogue, items)
    noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(known))
    noise *= NOISE * ranker.item_vectors[1:].std(correction=0)
    size = len(counted)
    if met is None or not size:
        return torch.from_numpy(items), vectors + noise
    near, weight = _mean(ranker, met.neighbours[:size, :known] @ sparse.diags(ranker.trained.astype(np.float32)))
    events = torch.from_numpy(met.events[:size]).float().unsqueeze(1) * (weight > 0)
    placed = events > 0
    if met.alike is not None:
        shared, told = _mean(ranker, met.alike[:size])
        vectors[:size] = torch.where(told > 0, shared, vectors[:size])
        placed |= told > 0
    vectors += noise
    vectors[:size] = (PRIOR_EVENTS * vectors[:size] + events * near) / (PRIOR_EVENTS + events)
    if length:
        vectors[:size] = torch.where(placed, stretched(vectors[:size], ranker, length), vectors[:size])
    return torch.from_numpy(items), vectors


def stretched(vectors: Tensor, ranker: Ranker, share: float) -> Tensor:
    """``vectors`` ``[rows, dim]`` in their own directions, their lengths moved by ``share`` towards the median length.

    A mean of vectors is shorter than the vectors themselves, and so are its products: an item with such a vector is ranked
    well among other newcomers and far behind all other items.
    """
    usual = ranker.item_vectors[1:].norm(dim=1)[ranker.trained[1:]].median()
    own = vectors.norm(dim=1, keepdim=True)
    return vectors * (1 + share * (usual / own.clamp(min=1e-9) - 1))


def _mean(ranker: Ranker, weights: sparse.csr_matrix) -> tuple[Tensor, Tensor]:
    """The means of trained vectors by the ``weights`` of a row, ``[rows, dim]``, and their sums ``[rows, 1]``."""
    total = torch.from_numpy(weights.sum(axis=1)).float()
    return torch.from_numpy(weights @ ranker.item_vectors.numpy()) / total.clamp(min=1e-9), total


def _is_for(met: Newcomers | None, ranker: Ranker) -> bool:
    """Whether evidence is about items that this ranker was not trained on: that for another model must not be used."""
    if met is None:
        return False
    inside = met.items <= ranker.n_items
    later = met.items[~inside]
    return not ranker.trained[met.items[inside]].any() and later[:1].tolist() in ([], [ranker.n_items + 1])


def _centroids(ranker: Ranker, catalogue: Catalogue, items: np.ndarray) -> Tensor:
    """For each of the new ``items`` the mean of the means of its categories, ``[items, dim]``; the mean of all trained items
    where it has none. A category without a trained item does not count."""
    known = np.flatnonzero(ranker.trained[: len(catalogue.available)])[1:]  # without padding
    vectors, n_names = ranker.item_vectors, len(catalogue.names)
    categories = torch.from_numpy(catalogue.categories)
    new = categories[items].long()
    sums, counts = torch.zeros(n_names, vectors.shape[1]), torch.zeros(n_names, 1)
    for some in torch.from_numpy(known).split(GATHER_BATCH):
        for column in categories[some].T:
            sums.index_add_(0, column, vectors[some])
            counts.index_add_(0, column, torch.ones(len(some), 1))
    sums[0], counts[0] = 0.0, 0.0
    means, real = sums / counts.clamp(min=1), (counts > 0).float()
    total, many = means[new].sum(dim=1), real[new].sum(dim=1)
    return torch.where(many > 0, total / many.clamp(min=1), _overall_mean(ranker))


def _overall_mean(ranker: Ranker) -> Tensor:
    """The mean vector of all trained items."""
    weight = torch.from_numpy(ranker.trained[1:].astype(np.float32))
    return weight @ ranker.item_vectors[1:] / weight.sum().clamp(min=1)
