"""Losses for predicting an item from a state, over real positions only.

``softmax``: cross-entropy over the whole catalogue. At most ``TILE_LOGITS`` logits are in memory: the gradient of a tile is
computed while its logits are there (the same three products as without tiles). Rejected: letting autograd keep the logits of
each tile, which does not bound memory, and recomputing them, which costs a fourth product.

``sampled_softmax``, ``gbce`` and ``bpr`` compare the target with a few negatives that the whole batch shares
(``models.negatives``), at ``negatives / items`` of that cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from headwater.config import Loss
from headwater.models import negatives

TILE_LOGITS = {"cpu": 1 << 21, "cuda": 1 << 27}
"""Logits in memory at once, by device (8 and 512 MiB): as many as fit a CPU's caches, or keep a GPU busy. A tile has at least 16
positions, so on a CPU it exceeds this above 131,072 items."""


class Items(Protocol):
    """The item vectors of a model, all of them or some."""

    def item_matrix(self) -> Tensor:
        """``[items + 1, dim]``; row 0 is padding."""

    def item_rows(self, items: Tensor) -> Tensor:
        """The vectors of ``items`` int64 ``[n]``: ``[n, dim]``."""


@dataclass(frozen=True)
class Objective:
    """A loss, and what it needs to draw negatives.

    ``counts`` float32 ``[items + 1]``: how often each item is a target in training. ``generator``: draws the negatives, seeded
    alike on all ranks; BERT4Rec also draws its masks from it, after which ranks draw different negatives. One objective serves a
    whole epoch.
    """

    loss: Loss = field(default_factory=lambda: Loss(kind="softmax"))
    counts: Tensor = field(default_factory=lambda: torch.zeros(0))
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        assert self.loss.kind != "auto", "which loss it is depends on the catalogue: Loss.of_catalogue"

    @cached_property
    def distribution(self) -> negatives.SamplingDistribution:
        return negatives.SamplingDistribution(self.counts)

    def __call__(self, states: Tensor, targets: Tensor, weights: Tensor, items: Items) -> tuple[Tensor, Tensor]:
        """The weighted sum of the losses and the sum of weights, so that the results of ranks and batches can be added exactly.

        ``states`` ``[positions, dim]``, ``targets`` int64 ``[positions]`` from 1, ``weights`` ``[positions]``. A position of
        weight 0 is not a target: it costs nothing, and no negative is drawn from it.
        """
        is_target = weights > 0
        if not is_target.all():
            states, targets, weights = states[is_target], targets[is_target], weights[is_target]
        if self.loss.kind == "softmax":
            total = _TiledCrossEntropy.apply(states, items.item_matrix()[1:], targets - 1, weights)
            return total, weights.sum()
        drawn = negatives.draw(self.loss, targets, self.distribution, self.generator)
        wanted, others = items.item_rows(torch.cat([targets, drawn.items])).split([len(targets), len(drawn.items)])
        positive = (states * wanted).sum(-1).float()  # [positions]
        negative = (states @ others.T).float()  # [positions, negatives]
        hit = drawn.items == targets.unsqueeze(1)  # the target itself is not a negative
        each = SAMPLED[self.loss.kind](positive, negative, hit, drawn.log_expected, self.loss, len(self.counts) - 1)
        return (each * weights).sum(), weights.sum()


def sampled_softmax(
    positive: Tensor, negative: Tensor, hit: Tensor, log_expected: Tensor, loss: Loss, n_items: int
) -> Tensor:
    """Softmax over the target and its negatives, ``[positions]``.

    With ``loss.correction`` each negative is weighted by the inverse of its expected number of draws (logQ, Bengio and Senécal,
    2003), which estimates the softmax over the whole catalogue; without it the softmax is over the drawn items.
    """
    if loss.correction:
        negative = negative - log_expected
    logits = torch.cat([positive.unsqueeze(1), negative.masked_fill(hit, -1e4)], dim=1)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device), reduction="none")


def gbce(positive: Tensor, negative: Tensor, hit: Tensor, log_expected: Tensor, loss: Loss, n_items: int) -> Tensor:
    """Generalised binary cross-entropy (Petrov and Macdonald, gSASRec, 2023), ``[positions]``.

    The probability of the positive is raised to the power β = α (t (1 - 1 / α) + 1 / α), with α the sampled share of the
    catalogue and t ``loss.calibration``: 0 is the plain loss, 1 removes all of the overconfidence that negative sampling causes.
    """
    drawn = negative.shape[1]
    alpha = min(1.0, max(drawn, 1) / max(n_items - 1, 1))
    beta = alpha * (loss.calibration * (1 - 1 / alpha) + 1 / alpha)
    against = F.softplus(negative).masked_fill(hit, 0.0).sum(1)
    return (beta * F.softplus(-positive) + against) / (drawn + 1)


def bpr(positive: Tensor, negative: Tensor, hit: Tensor, log_expected: Tensor, loss: Loss, n_items: int) -> Tensor:
    """Bayesian personalised ranking (Rendle et al., 2009): -log σ(positive - negative), averaged over the negatives."""
    worse = F.softplus(negative - positive.unsqueeze(1)).masked_fill(hit, 0.0)
    return worse.sum(1) / (~hit).sum(1).clamp(min=1)


SampledLoss = Callable[[Tensor, Tensor, Tensor, Tensor, Loss, int], Tensor]
SAMPLED: dict[str, SampledLoss] = {"sampled_softmax": sampled_softmax, "gbce": gbce, "bpr": bpr}
"""``(positive [positions], negative and bool hit [positions, n], log_expected [n], loss, n_items)`` → ``[positions]``."""


class _TiledCrossEntropy(torch.autograd.Function):
    """Weighted sum of softmax cross-entropy; without positions, a zero whose gradients are zero."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, items: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        tile = max(16, TILE_LOGITS[states.device.type] // len(items))
        needs_gradient = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        total = torch.zeros((), device=states.device)
        states_gradient = torch.zeros_like(states if needs_gradient else states[:0])
        items_gradient = torch.zeros_like(items if needs_gradient else items[:0], dtype=torch.float32)
        for start in range(0, len(states), tile):
            part, target = states[start : start + tile], targets[start : start + tile, None]  # [tile, dim], [tile, 1]
            weight = weights[start : start + tile, None].float()
            logits = (part @ items.T).float()  # [tile, items]
            logits -= logits.amax(dim=1, keepdim=True)
            chosen = logits.gather(1, target)
            norm = logits.exp_().sum(dim=1, keepdim=True)
            total += (weight * (norm.log() - chosen)).sum()
            if needs_gradient:
                # the gradient of a row is its probabilities minus 1 at the target, here both times the softmax denominator
                gradient, scale = logits.scatter_add_(1, target, -norm).to(part.dtype), weight / norm
                states_gradient[start : start + tile] = (gradient @ items) * scale
                items_gradient += gradient.T @ (part * scale).to(part.dtype)
        ctx.save_for_backward(states_gradient, items_gradient)
        ctx.kind = items.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states_gradient, items_gradient = ctx.saved_tensors
        return states_gradient * gradients[0], (items_gradient * gradients[0]).to(ctx.kind), None, None
