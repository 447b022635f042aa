"""SASRec: a causal transformer over the history (Kang & McAuley, Self-Attentive Sequential Recommendation, 2018).

Trained with cross-entropy over the catalogue instead of the paper's one negative, which ranks better for the same time.
"""

from __future__ import annotations

from headwater.models.transformer import Transformer


class SASRec(Transformer):
    """With the absolute positions of the paper."""


class RelativeSASRec(Transformer):
    """With relative positions: attention depends on the distance between events and not on their place in the history."""

    absolute = False
