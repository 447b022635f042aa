"""Extend a trained model to items added after its training."""

from __future__ import annotations

import dataclasses

import torch
from scipy import sparse
from torch import Tensor

from headwater.models.spec import ModelSpec
from headwater.training.initial import with_features


def grow(
    weights: dict[str, Tensor],
    spec: ModelSpec,
    n_items: int,
    seed: int,
    described: sparse.csr_matrix | None = None,
) -> tuple[dict[str, Tensor], ModelSpec]:
    """Weights and spec for ``n_items`` items: old rows unchanged, new ones at the mean of all items plus some noise.

    A model with item features is given today's, ``described`` CSR ``[n_items + 1, buckets]``; a new item's own vector is then
    zero. Rows after the items (a mask token) stay last. A smaller or equal ``n_items`` adds no rows.
    """
    if described is not None:
        weights, spec = with_features(weights, spec, described)
    added = n_items - spec.n_items
    if added <= 0:
        return weights, spec
    table = weights["item.weight"]
    known = table[1 : spec.n_items + 1]
    noise = torch.randn(added, table.shape[1], generator=torch.Generator().manual_seed(seed))
    fresh = known.mean(0) + 0.1 * known.std(0, correction=0) * noise if described is None else torch.zeros_like(noise)
    grown = torch.cat([table[: spec.n_items + 1], fresh, table[spec.n_items + 1 :]])
    return {**weights, "item.weight": grown}, dataclasses.replace(spec, n_items=n_items)
