"""Start from another site's model: its encoder and its feature vectors are taken over.

Features are hashed (``training.describe``), so a category or a word has the same row in both models. Items are not the same:
their own vectors start from zero, or from co-occurrence factors rotated towards their feature vectors (orthogonal Procrustes,
Schönemann, 1966), because factors are defined only up to a rotation and the encoder expects one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headwater import models
from headwater.errors import ModelError
from headwater.models import SequenceModel
from headwater.models.spec import ModelSpec
from headwater.training.describe import BUCKETS

SHAPE = ("kind", "dim", "layers", "heads", "feed_forward", "max_length")
"""The fields that must be equal in both models; items, dropout and the objective's settings may differ."""
SITE_TENSORS = ("item.weight", "features.start", "features.bucket", "features.share")
"""The tensors that belong to a site: those of its items, and which features they have."""


def check(source: ModelSpec, spec: ModelSpec, name: str) -> None:
    """Raises ModelError, naming the difference, if a model of ``spec`` cannot start from a model of ``source``."""
    if not source.feature_buckets:
        raise ModelError(f"train.start_from: model {name} has no item features; train it with model.features first")
    for part in SHAPE:
        theirs, ours = getattr(source, part), getattr(spec, part)
        if theirs != ours:
            raise ModelError(f"train.start_from: model {name} has {part} {theirs}, but this training needs {ours}")
    if source.feature_buckets != BUCKETS:
        raise ModelError(
            f"train.start_from: model {name} hashes features into {source.feature_buckets} rows, not {BUCKETS}"
        )


def take_over(weights: dict[str, Tensor], spec: ModelSpec, source: SequenceModel, factors: bool) -> dict[str, Tensor]:
    """The ``weights`` of a model of ``spec``, with features, after taking over those of a ``source`` that passes ``check``.

    ``factors``: item rows hold factors, which are rotated; otherwise item rows become zero. Rows after the items (a mask token)
    are the source's. Context parts that only the new model reads keep their weights; those that only the source reads are left
    out.
    """
    theirs = source.state_dict()
    shared = (theirs.keys() & weights.keys()).difference(SITE_TENSORS)
    carried = weights | {key: theirs[key].clone() for key in shared}
    items = torch.zeros_like(weights["item.weight"])
    items[spec.n_items + 1 :] = theirs["item.weight"][source.spec.n_items + 1 :]
    if factors:
        own = weights["item.weight"][: spec.n_items + 1]
        items[: spec.n_items + 1] = own @ rotation(own, feature_vectors(carried, spec))
    return carried | {"item.weight": items}


def feature_vectors(weights: dict[str, Tensor], spec: ModelSpec) -> Tensor:
    """The feature part of each item's vector, ``[n_items + 1, dim]``."""
    model = models.restore(spec, weights)
    assert model.features is not None
    with torch.no_grad():
        return model.features(torch.arange(spec.n_items + 1))


def rotation(vectors: Tensor, towards: Tensor) -> Tensor:
    """The rotation ``[dim, dim]`` that brings ``vectors`` nearest to ``towards``, both ``[items, dim]``."""
    left, _, right = torch.linalg.svd(vectors.T.double() @ towards.double())
    return (left @ right).to(vectors.dtype)
