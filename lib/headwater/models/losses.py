"""Losses over real positions only: cross-entropy over the whole catalogue, or over shared sampled negatives.

The full loss never holds more than ``TILE_LOGITS`` logits: a tile's gradient is taken while its logits are at hand (the
same three products as without tiles). Rejected: letting autograd keep each tile's logits, which bounds nothing, and
recomputing them, which costs a fourth product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TILE_LOGITS = 1 << 21
"""Logits that stand in memory at once (8 MiB); above 131,072 items a tile still has 16 positions."""


def next_item(
    states: Tensor,
    targets: Tensor,
    weights: Tensor,
    matrix: Tensor,
    negatives: int = 0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the losses and the sum of weights.

    ``states`` ``[positions, dim]``, ``targets`` int64 ``[positions]`` from 1, ``weights`` ``[positions]``, ``matrix``
    ``[items + 1, dim]`` with padding in row 0. With ``negatives`` the softmax runs over the target and that many items
    drawn uniformly, shared by the batch; draws that hit a target are left out for it.
    """
    if negatives == 0:
        total = _TiledCrossEntropy.apply(states, matrix[1:], targets - 1, weights)
    else:
        total = _sampled(states, targets, weights, matrix, negatives, generator)
    return total, weights.sum()


class _TiledCrossEntropy(torch.autograd.Function):
    """Weighted sum of softmax cross-entropy; without positions a zero whose gradients are zero."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, items: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        tile = max(16, TILE_LOGITS // len(items))
        learning = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        total = torch.zeros((), device=states.device)
        to_states = torch.zeros_like(states if learning else states[:0])
        to_items = torch.zeros_like(items if learning else items[:0], dtype=torch.float32)
        for start in range(0, len(states), tile):
            part, target = states[start : start + tile], targets[start : start + tile, None]  # [tile, dim], [tile, 1]
            weight = weights[start : start + tile, None].float()
            logits = (part @ items.T).float()  # [tile, items]
            logits -= logits.max(dim=1, keepdim=True).values
            chosen = logits.gather(1, target)
            norm = logits.exp_().sum(dim=1, keepdim=True)
            total += (weight * (norm.log() - chosen)).sum()
            if learning:
                slope = logits.mul_(weight / norm).scatter_add_(1, target, -weight).to(part.dtype)  # [tile, items]
                to_states[start : start + tile] = slope @ items
                to_items += slope.T @ part
        ctx.save_for_backward(to_states, to_items)
        ctx.kind = items.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        to_states, to_items = ctx.saved_tensors
        return to_states * slopes[0], (to_items * slopes[0]).to(ctx.kind), None, None


def _sampled(
    states: Tensor, targets: Tensor, weights: Tensor, matrix: Tensor, negatives: int, generator: torch.Generator | None
) -> Tensor:
    drawn = torch.randint(1, len(matrix), (negatives,), generator=generator).to(states.device)
    positive = (states * matrix[targets]).sum(-1, keepdim=True)  # [positions, 1]
    negative = states @ matrix[drawn].T  # [positions, negatives]
    negative = negative.masked_fill(drawn.unsqueeze(0) == targets.unsqueeze(1), -1e4)
    logits = torch.cat([positive, negative], dim=1).float()
    return (F.cross_entropy(logits, torch.zeros_like(targets), reduction="none") * weights).sum()
