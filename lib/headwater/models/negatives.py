"""Negatives: the items that a sampled loss compares with the target, drawn once per batch and shared by all its positions.

Three sources. ``uniform``: every item is equally likely. ``popular``: the probability of an item is proportional to how often it
is a target in training. ``batch``: the targets of the same batch, which needs no other rows of the item table; nearly the
distribution of ``popular``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from headwater.config import Loss


class SamplingDistribution:
    """The probability of each item as a negative; computed once, at the first draw, so that later draws do not pass over the
    catalogue.

    ``counts`` float32 ``[items + 1]``: how often each item is a target in training. An item that is never a target counts as
    half an occurrence, so that it can be drawn at all.
    """

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts
        self.n_items = len(counts) - 1

    @cached_property
    def ends(self) -> Tensor:
        """Cumulative counts, float64 ``[items + 1]``: in float32 rare items of a large catalogue would vanish."""
        counts = self.counts.double().clamp(min=0.5)
        counts[0] = 0.0
        return counts.cumsum(0)

    @cached_property
    def log_share(self) -> Tensor:
        """Log of each item's share of the counts, float32 ``[items + 1]``."""
        return (self.ends.diff(prepend=self.ends.new_zeros(1)) / self.ends[-1]).log().float()


@dataclass(frozen=True)
class Negatives:
    """``items`` int64 ``[n]``, from 1; ``log_expected`` float32 ``[n]``: the log of how often each is drawn on average."""

    items: Tensor
    log_expected: Tensor


def draw(
    loss: Loss, targets: Tensor, distribution: SamplingDistribution, generator: torch.Generator | None
) -> Negatives:
    """Draw ``loss.negatives`` items with replacement; none if the source is ``batch`` and the batch has no targets.

    ``targets`` int64 ``[positions]`` are those of the batch, on the device of ``distribution``. Random numbers come from
    ``generator`` on the CPU, so they are the same on any device.
    """
    n = loss.negatives
    if loss.source == "uniform":
        items = torch.randint(1, distribution.n_items + 1, (n,), generator=generator).to(targets.device)
        return Negatives(items, torch.full((n,), n / distribution.n_items, device=targets.device).log())
    if loss.source == "popular":
        places = torch.rand(n, dtype=torch.float64, generator=generator).to(targets.device) * distribution.ends[-1]
        items = torch.searchsorted(distribution.ends, places, right=True).clamp(max=distribution.n_items)
    elif len(targets):
        items = targets[torch.randint(len(targets), (n,), generator=generator).to(targets.device)]
    else:
        items = targets
    return Negatives(items, distribution.log_share[items] + math.log(n))
