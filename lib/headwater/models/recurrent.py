"""Recurrent encoders: GRU (Hidasi et al., Session-based Recommendations with RNNs, 2016) and LSTM.

Right-aligned histories are shifted to the left for the recurrence, and their states shifted back, so padding never enters the
state of a real step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headwater.models.base import SequenceModel
from headwater.models.spec import ModelSpec


class Recurrent(SequenceModel):
    cell: type[nn.GRU] | type[nn.LSTM]

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        dropout = spec.dropout if spec.layers > 1 else 0.0
        self.recurrent = self.cell(spec.dim, spec.dim, spec.layers, batch_first=True, dropout=dropout)

    def transform(self, steps: Tensor, real: Tensor) -> Tensor:
        seq = steps.shape[1]
        place = torch.arange(seq, device=steps.device).unsqueeze(0)
        shift = seq - real.sum(1, keepdim=True)  # the column of the first real step
        leftmost = (place + shift).clamp(max=seq - 1)  # [batch, seq]
        back = (place - shift).clamp(min=0)
        aligned = steps.gather(1, leftmost.unsqueeze(-1).expand_as(steps))
        states, _ = self.recurrent(aligned)
        return states.gather(1, back.unsqueeze(-1).expand_as(states))


class GRU(Recurrent):
    cell = nn.GRU


class LSTM(Recurrent):
    cell = nn.LSTM
