"""Items that a sampled loss sets against the right one; drawn once a batch and shared by all of its positions.

Three sources. ``uniform``: every item is as likely as another. ``popular``: as likely as it is a target in training.
``batch``: targets of this very batch, which costs no look at the rest of the catalogue; nearly the same distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from headwater.config import Loss


@dataclass(frozen=True)
class Negatives:
    """``items`` int64 ``[n]``, from 1; ``log_expected`` float32 ``[n]``: log of how often each is drawn on average."""

    items: Tensor
    log_expected: Tensor


def draw(loss: Loss, targets: Tensor, counts: Tensor, generator: torch.Generator | None) -> Negatives:
    """``loss.negatives`` items, with replacement.

    ``counts`` float32 ``[items + 1]`` says how often each item is a target in training; an item that never is counts as
    half a target, so that it can be drawn at all. ``targets`` int64 ``[positions]`` are those of the batch. Draws come
    from ``generator`` on the CPU, the same ones whatever the device.
    """
    n_items, n = len(counts) - 1, loss.negatives
    if loss.source == "uniform":
        items = torch.randint(1, n_items + 1, (n,), generator=generator).to(targets.device)
        return Negatives(items, torch.full((n,), n / n_items, device=targets.device).log())
    often = counts.clamp(min=0.5)
    often[0] = 0.0
    if loss.source == "popular":
        items = torch.multinomial(often, n, replacement=True, generator=generator).to(targets.device)
    elif len(targets):
        items = targets[torch.randint(len(targets), (n,), generator=generator).to(targets.device)]
    else:
        items = targets
    share = often / often.sum()
    return Negatives(items, (n * share.to(targets.device)[items]).log())
