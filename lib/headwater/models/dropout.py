"""Dropout at a quarter of the CPU cost of torch's: one 64-bit random number serves four values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 1 << 16
SMALLEST_WORD, SMALLEST_DRAW = -(1 << 63), -(1 << 15)
"""The smallest integers of 64 and of 16 bits."""


class Dropout(nn.Dropout):
    """Like ``torch.nn.Dropout`` with a ``p`` below 1; on a CPU ``p`` is rounded to a multiple of 1 / 65,536."""

    def forward(self, values: Tensor) -> Tensor:
        """``values`` of any shape → the same shape. In training each value is dropped (set to 0) with probability ``p`` and
        otherwise divided by ``1 - p``."""
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        if not (self.training and dropped and values.device.type == "cpu"):
            return super().forward(values)
        words = torch.empty((values.numel() + 3) // 4, dtype=torch.int64).random_(SMALLEST_WORD, None)
        draws = words.view(torch.int16)[: values.numel()].view(values.shape)
        kept = torch.ge(draws, SMALLEST_DRAW + dropped, out=values.new_empty(0))
        return values * kept.mul_(LEVELS / (LEVELS - dropped))
