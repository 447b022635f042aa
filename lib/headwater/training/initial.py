"""The initial weights of a training: drawn from a seed, then partly replaced by what is known before the first step."""

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

ITEM_STD = 0.05
"""Standard deviation of the entries of an item vector initialised from co-occurrence; training soon lengthens the vectors that
it is sure of."""


def weights(
    spec: ModelSpec,
    seed: int,
    sequences: np.ndarray | None = None,
    described: sparse.csr_matrix | None = None,
    source: SequenceModel | None = None,
) -> tuple[dict[str, Tensor], ModelSpec]:
    """Weights by name, and their spec (``spec_of``).

    ``sequences`` int ``[rows, seq]``: item vectors are initialised as co-occurrence factors; ``described`` CSR
    ``[n_items + 1, buckets]``: item features from the catalogue (``training.describe``); ``source``, only with ``described``: a
    model of another site to start from (``training.transfer``).
    """
    torch.manual_seed(seed)
    state = models.build(spec).state_dict()
    if sequences is not None:
        vectors = factors.item_vectors(sequences, spec.n_items, spec.dim, seed)
        state["item.weight"][1 : spec.n_items + 1] = vectors[1:] * ITEM_STD
    if described is None:
        return state, spec
    state, _ = with_features(state, spec, described)
    spec = spec_of(spec, described, source)
    if source is None:
        return state, spec
    return transfer.take_over(state, spec, source, sequences is not None), spec


def spec_of(spec: ModelSpec, described: sparse.csr_matrix | None, source: SequenceModel | None = None) -> ModelSpec:
    """The spec with item features and, with a ``source``, the input scale of its encoder."""
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
    """A short identifier of the inputs of ``weights`` besides the snapshot, the same on any machine. Weights and shares
    themselves are not hashed, because their last bits depend on the number of cores. ``kind``: ``model.initial``."""
    hasher = hashlib.sha256(json.dumps([spec.to_dict(), seed, kind], sort_keys=True).encode())
    if described is not None:
        hasher.update(described.indptr)
        hasher.update(described.indices)
    for tensor in source.state_dict().values() if source is not None else ():
        hasher.update(tensor.cpu().contiguous().numpy())
    return hasher.hexdigest()[:16]


def with_features(
    weights: dict[str, Tensor], spec: ModelSpec, described: sparse.csr_matrix
) -> tuple[dict[str, Tensor], ModelSpec]:
    """Weights and spec with item features added; existing feature vectors are kept, otherwise they start at zero."""
    buckets = described.shape[1]
    rows = described.shape[0] + models.ENCODERS[spec.kind].extra_tokens
    arrays = {
        "weight": weights.get("features.weight", torch.zeros(buckets, spec.dim)),
        "start": torch.from_numpy(np.pad(described.indptr, (0, rows + 1 - len(described.indptr)), mode="edge")).long(),
        "bucket": torch.from_numpy(described.indices).long(),
        "share": torch.from_numpy(described.data).float(),
    }
    return {**weights, **{f"features.{name}": array for name, array in arrays.items()}}, spec_of(spec, described)
