"""Items that a sampled loss sets against the right one; drawn once a batch and shared by all of its positions.

Three sources. ``uniform``: every item is as likely as another. ``popular``: as likely as it is a target in training.
``batch``: targets of this very batch, which costs no look at the rest of the catalogue; nearly the same distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from headwater.config import Loss


class Chances:
    """How likely items are as negatives, worked out at the first draw, so that no other goes through the catalogue.

    ``counts`` float32 ``[items + 1]`` says how often each item is a target in training; an item that never is counts as
    half a target, so that it can be drawn at all.
    """

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts
        self.n_items = len(counts) - 1

    @cached_property
    def ends(self) -> Tensor:
        """Running sums of the counts, float64 ``[items + 1]``: in float32 rare items of a large catalogue would vanish."""
        often = self.counts.double().clamp(min=0.5)
        often[0] = 0.0
        return often.cumsum(0)

    @cached_property
    def log_share(self) -> Tensor:
        """Log of each item's share of the counts, float32 ``[items + 1]``."""
        return (self.ends.diff(prepend=self.ends.new_zeros(1)) / self.ends[-1]).log().float()


@dataclass(frozen=True)
class Negatives:
    """``items`` int64 ``[n]``, from 1; ``log_expected`` float32 ``[n]``: log of how often each is drawn on average."""

    items: Tensor
    log_expected: Tensor


def draw(loss: Loss, targets: Tensor, chances: Chances, generator: torch.Generator | None) -> Negatives:
    """``loss.negatives`` items, with replacement.

    ``targets`` int64 ``[positions]`` are those of the batch, on the device of ``chances``. Draws come from ``generator`` on
    the CPU, the same ones whatever the device.
    """
    n = loss.negatives
    if loss.source == "uniform":
        items = torch.randint(1, chances.n_items + 1, (n,), generator=generator).to(targets.device)
        return Negatives(items, torch.full((n,), n / chances.n_items, device=targets.device).log())
    if loss.source == "popular":
        places = torch.rand(n, dtype=torch.float64, generator=generator).to(targets.device) * chances.ends[-1]
        items = torch.searchsorted(chances.ends, places, right=True).clamp(max=chances.n_items)
    elif len(targets):
        items = targets[torch.randint(len(targets), (n,), generator=generator).to(targets.device)]
    else:
        items = targets
    return Negatives(items, chances.log_share[items] + math.log(n))
