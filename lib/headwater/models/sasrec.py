"""SASRec: a causal transformer over the history (Kang & McAuley, Self-Attentive Sequential Recommendation, 2018).

The default loss is cross-entropy over the catalogue instead of the paper's one negative per target; it ranks better for the same
training time.
"""

from __future__ import annotations

from headwater.models.transformer import Transformer


class SASRec(Transformer):
    """With absolute positions, as in the paper."""


class RelativeSASRec(Transformer):
    """With relative positions: attention depends on the distance between events, not on their position in the history."""

    absolute = False
