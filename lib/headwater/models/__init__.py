"""Sequence models in pure torch, which know nothing of ranks, files or loggers. A new encoder needs one module here and one line
in ``headwater.encoders``."""

from importlib import import_module

import torch
from torch import Tensor

from headwater.encoders import ENCODERS as NAMED
from headwater.models.base import SequenceModel
from headwater.models.spec import ModelSpec


def _encoder(place: str) -> type[SequenceModel]:
    module, name = place.split(".")
    found: type[SequenceModel] = getattr(import_module(f"headwater.models.{module}"), name)
    return found


ENCODERS = {kind: _encoder(place) for kind, place in NAMED.items()}

__all__ = ["ENCODERS", "ModelSpec", "SequenceModel", "build", "restore"]


def build(spec: ModelSpec) -> SequenceModel:
    """A model with fresh weights, drawn from torch's current random state."""
    return ENCODERS[spec.kind](spec)


def restore(spec: ModelSpec, weights: dict[str, Tensor]) -> SequenceModel:
    """A model with the given weights, used without a copy, in evaluation mode.

    Raises RuntimeError if their names or shapes do not match ``spec``, ValueError if a dtype does not.
    """
    with torch.device("meta"):  # draw no random weights, which would be replaced at once
        model = build(spec)
    kinds = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    if wrong := [name for name, tensor in weights.items() if tensor.dtype != kinds.get(name, tensor.dtype)]:
        raise ValueError(f"tensor {wrong[0]} is {weights[wrong[0]].dtype}, not {kinds[wrong[0]]}")
    model.load_state_dict(weights, assign=True)
    return model.eval()
