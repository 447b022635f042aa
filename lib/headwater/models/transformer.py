"""Base of the transformers: a stack of blocks over the steps, causal or not."""

from __future__ import annotations

from torch import Tensor, nn

from headwater.models.attention import Block, allowed_pairs
from headwater.models.base import SequenceModel
from headwater.models.spec import ModelSpec


class Transformer(SequenceModel):
    causal = True
    """If True, no step attends to later steps."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        reach = 0 if self.absolute else spec.max_length
        self.blocks = nn.ModuleList(
            Block(spec.dim, spec.heads, spec.dropout, spec.feed_forward, reach) for _ in range(spec.layers)
        )

    def transform(self, steps: Tensor, real: Tensor) -> Tensor:
        allowed = allowed_pairs(real, self.causal)
        for block in self.blocks:
            steps = block(steps, allowed)
        return steps

    def newest(self, steps: Tensor, real: Tensor) -> Tensor:
        allowed = allowed_pairs(real, self.causal)
        *earlier, last = self.blocks
        for block in earlier:
            steps = block(steps, allowed)
        assert isinstance(last, Block), "the last layer must be a Block"
        return last.newest(steps, allowed)[:, 0]
