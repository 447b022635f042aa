"""The weights that a training starts from: drawn by seed, with what is known before the first step put in."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from headwater import models
from headwater.models import SequenceModel, factors
from headwater.models.spec import ModelSpec
from headwater.training import transfer

SPREAD = 0.05
"""Of the entries of an item vector that starts from what occurs together; the training soon lengthens what it is sure of."""


def weights(
    spec: ModelSpec,
    seed: int,
    sequences: np.ndarray | None = None,
    described: sparse.csr_matrix | None = None,
    source: SequenceModel | None = None,
) -> tuple[dict[str, Tensor], ModelSpec]:
    """Weights by name, and their spec (``spec_of``).

    ``sequences`` int ``[rows, seq]``: item vectors start as the factors of what occurs near what; ``described`` CSR
    ``[n_items + 1, buckets]``: what the catalogue says of items (``training.describe``); ``source``, beside ``described``: a
    model of another site to start from (``training.transfer``).
    """
    torch.manual_seed(seed)
    state = models.build(spec).state_dict()
    if sequences is not None:
        vectors = factors.item_vectors(sequences, spec.n_items, spec.dim, seed)
        state["item.weight"][1 : spec.n_items + 1] = vectors[1:] * SPREAD
    if described is None:
        return state, spec
    state, _ = with_features(state, spec, described)
    spec = spec_of(spec, described, source)
    if source is None:
        return state, spec
    return transfer.carry(state, spec, source, sequences is not None), spec


def spec_of(spec: ModelSpec, described: sparse.csr_matrix | None, source: SequenceModel | None = None) -> ModelSpec:
    """The spec with the features in it, and with the scale that the encoder of a ``source`` is used to."""
    if described is None:
        return spec
    scale = spec.input_scale if source is None else source.spec.input_scale
    buckets, cells = described.shape[1], described.nnz
    return dataclasses.replace(spec, feature_buckets=buckets, feature_cells=cells, input_scale=scale)


def fingerprint(
    spec: ModelSpec,
    seed: int,
    kind: str,
    described: sparse.csr_matrix | None = None,
    source: SequenceModel | None = None,
) -> str:
    """A short name for what the ``weights`` of a snapshot come from, the same on any machine: their own last bits, as those
    of shares, depend on how many cores worked them out. ``kind``: ``model.initial``."""
    told = hashlib.sha256(json.dumps([spec.to_dict(), seed, kind], sort_keys=True).encode())
    if described is not None:
        told.update(described.indptr)
        told.update(described.indices)
    for tensor in source.state_dict().values() if source is not None else ():
        told.update(tensor.cpu().contiguous().numpy())
    return told.hexdigest()[:16]


def with_features(
    weights: dict[str, Tensor], spec: ModelSpec, described: sparse.csr_matrix
) -> tuple[dict[str, Tensor], ModelSpec]:
    """Weights and spec with the features of items put in; what the features mean stays, or is nothing at first."""
    buckets = described.shape[1]
    rows = described.shape[0] + models.ENCODERS[spec.kind].extra_tokens
    arrays = {
        "weight": weights.get("features.weight", torch.zeros(buckets, spec.dim)),
        "start": torch.from_numpy(np.pad(described.indptr, (0, rows + 1 - len(described.indptr)), mode="edge")).long(),
        "bucket": torch.from_numpy(described.indices).long(),
        "share": torch.from_numpy(described.data).float(),
    }
    return {**weights, **{f"features.{name}": array for name, array in arrays.items()}}, spec_of(spec, described)
