"""Losses over real positions only: cross-entropy over the whole catalogue, or over shared sampled negatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TILE = 4_096
"""Positions whose logits stand in memory at once: ``TILE × items`` floats."""


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
        parts = [
            _full(states[start : start + TILE], targets[start : start + TILE], weights[start : start + TILE], matrix)
            for start in range(0, len(states), TILE)
        ]
        total = torch.stack(parts).sum() if parts else states.sum() + 0.0 * matrix.sum()
    else:
        total = _sampled(states, targets, weights, matrix, negatives, generator)
    return total, weights.sum()


def _full(states: Tensor, targets: Tensor, weights: Tensor, matrix: Tensor) -> Tensor:
    logits = states @ matrix[1:].T  # [positions, items]
    return (F.cross_entropy(logits.float(), targets - 1, reduction="none") * weights).sum()


def _sampled(
    states: Tensor, targets: Tensor, weights: Tensor, matrix: Tensor, negatives: int, generator: torch.Generator | None
) -> Tensor:
    drawn = torch.randint(1, len(matrix), (negatives,), generator=generator).to(states.device)
    positive = (states * matrix[targets]).sum(-1, keepdim=True)  # [positions, 1]
    negative = states @ matrix[drawn].T  # [positions, negatives]
    negative = negative.masked_fill(drawn.unsqueeze(0) == targets.unsqueeze(1), -1e4)
    logits = torch.cat([positive, negative], dim=1).float()
    return (F.cross_entropy(logits, torch.zeros_like(targets), reduction="none") * weights).sum()
