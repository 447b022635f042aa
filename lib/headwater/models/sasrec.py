"""SASRec: a causal transformer over the history (Kang & McAuley, Self-Attentive Sequential Recommendation, 2018).

Trained with cross-entropy over the catalogue instead of the paper's one negative, which ranks better for the same time.
"""

from __future__ import annotations

from torch import Tensor, nn

from headwater.models.attention import Block, allowed_pairs, newest
from headwater.models.base import SequenceModel
from headwater.models.spec import ModelSpec


class SASRec(SequenceModel):
    """With the absolute positions of the paper."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        reach = 0 if self.absolute else spec.max_length
        self.blocks = nn.ModuleList(
            Block(spec.dim, spec.heads, spec.dropout, spec.feed_forward, reach) for _ in range(spec.layers)
        )

    def transform(self, steps: Tensor, real: Tensor) -> Tensor:
        allowed = allowed_pairs(real, causal=True)
        for block in self.blocks:
            steps = block(steps, allowed)
        return steps

    def newest(self, steps: Tensor, real: Tensor) -> Tensor:
        return newest(self.blocks, steps, allowed_pairs(real, causal=True))


class RelativeSASRec(SASRec):
    """With relative positions: what a step makes of the past is the same wherever in a history it stands."""

    absolute = False
