"""Start from another site's model: its encoder and what features of items mean there are taken over.

Features are hashed (``training.describe``), so a category or a word has the same row in both models. Items are not the same:
their own vectors start from nothing, or from what occurs near what, turned towards what their features say
(orthogonal Procrustes, Schönemann, 1966), because factors have no direction of their own and the encoder has one.
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
"""What two models must have in common; items, dropout and the objective's settings may differ."""
OWN = ("item.weight", "features.start", "features.bucket", "features.share")
"""What is a site's own: its items, and which features they have."""


def check(source: ModelSpec, spec: ModelSpec, name: str) -> None:
    """Raises ModelError, naming what differs, when a model cannot be what another one of ``spec`` starts from."""
    if not source.feature_buckets:
        raise ModelError(
            f"train.start_from: model {name} knows no features of items; train it with model.features first"
        )
    for part in SHAPE:
        theirs, ours = getattr(source, part), getattr(spec, part)
        if theirs != ours:
            raise ModelError(f"train.start_from: model {name} has {part} {theirs}, this training asks for {ours}")
    if source.feature_buckets != BUCKETS:
        raise ModelError(
            f"train.start_from: model {name} hashes features into {source.feature_buckets} rows, not {BUCKETS}"
        )


def carry(weights: dict[str, Tensor], spec: ModelSpec, source: SequenceModel, factors: bool) -> dict[str, Tensor]:
    """``weights`` of a model of ``spec``, with features, as they start from a ``source`` that ``check`` lets pass.

    ``factors``: rows of items hold factors, which are turned; otherwise they become zero. Rows after the items (a mask
    token) are the source's. Parts of a context that only one of the two is told of stay as they were, or behind.
    """
    theirs = source.state_dict()
    shared = (theirs.keys() & weights.keys()).difference(OWN)
    carried = weights | {key: theirs[key].clone() for key in shared}
    items = torch.zeros_like(weights["item.weight"])
    items[spec.n_items + 1 :] = theirs["item.weight"][source.spec.n_items + 1 :]
    if factors:
        own = weights["item.weight"][: spec.n_items + 1]
        items[: spec.n_items + 1] = own @ turn(own, said(carried, spec))
    return carried | {"item.weight": items}


def said(weights: dict[str, Tensor], spec: ModelSpec) -> Tensor:
    """What features say of each item, ``[n_items + 1, dim]``."""
    model = models.restore(spec, weights)
    assert model.features is not None
    with torch.no_grad():
        return model.features(torch.arange(spec.n_items + 1))


def turn(vectors: Tensor, towards: Tensor) -> Tensor:
    """The rotation ``[dim, dim]`` that brings ``vectors`` nearest to ``towards``, both ``[items, dim]``."""
    left, _, right = torch.linalg.svd(vectors.T.double() @ towards.double())
    return (left @ right).to(vectors.dtype)
