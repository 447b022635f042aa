"""BERT4Rec: a bidirectional transformer that fills in masked events (Sun et al., 2019).

Training masks a random share of the events and, in half of the sequences, also the newest one, because inference appends a mask
after the newest event.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headwater.models.base import FULL_SOFTMAX
from headwater.models.losses import Objective
from headwater.models.spec import ModelSpec
from headwater.models.transformer import Transformer


class Bert4Rec(Transformer):
    extra_tokens = 1
    causal = False

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.mask_token = spec.n_items + 1

    def _read(self, items: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The events that are read, and a mask after the newest one, ``[batch, seq + 1]``: its state predicts the next item."""
        items, context = super()._read(items, context)
        mask = torch.full_like(items[:, :1], self.mask_token)
        return torch.cat([items, mask], dim=1), torch.cat([context, torch.zeros_like(mask)], dim=1)

    def loss(
        self, items: Tensor, context: Tensor, weights: Tensor | None = None, objective: Objective = FULL_SOFTMAX
    ) -> tuple[Tensor, Tensor]:
        """Masked-item loss of sequences ``[batch, seq + 1]``, with the arguments and results of the next-item loss."""
        real = items > 0
        draws = torch.rand(items.shape, generator=objective.generator).to(items.device)
        masked = real & (draws < self.spec.mask_probability)
        newest = torch.rand(len(items), generator=objective.generator).to(items.device) < 0.5
        masked[:, -1] |= newest & real[:, -1]
        several = real.sum(1, keepdim=True) > 1
        masked &= several
        if not masked.any():  # with few events the draw may mask none
            masked[:, -1] = several.squeeze(1) & real[:, -1]
        states = self.encode(
            items.masked_fill(masked, self.mask_token), context.masked_fill(masked, 0)
        )  # [batch, seq + 1, dim]
        weight = torch.ones_like(items, dtype=states.dtype) if weights is None else weights
        return objective(states[masked], items[masked], weight[masked], self)

    forward = loss
