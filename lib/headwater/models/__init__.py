"""Sequence models in pure torch: no rank, device, file or logger. A new encoder is one module and one line below."""

from headwater.models import bert4rec, recurrent, sasrec
from headwater.models.base import SequenceModel
from headwater.models.spec import ModelSpec

ENCODERS = {
    "sasrec": sasrec.SASRec,
    "relative": sasrec.RelativeSASRec,
    "bert4rec": bert4rec.Bert4Rec,
    "gru": recurrent.GRU,
    "lstm": recurrent.LSTM,
}

__all__ = ["ENCODERS", "ModelSpec", "SequenceModel", "build"]


def build(spec: ModelSpec) -> SequenceModel:
    """A model with fresh weights, drawn from torch's current random state."""
    return ENCODERS[spec.kind](spec)
