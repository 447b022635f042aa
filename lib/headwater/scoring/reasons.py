"""Why an item stands in a list: the past event without which it would score lower.

Taken literally: an event is left out of the history, the item is scored again, and the event whose absence costs it most
is its reason. Doing that for each of fifty events would cost fifty encodings a user; it is done for the few that are
most like what is listed, the newest among them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headwater.models.ranker import Ranker

TRIED = 4
"""Events of a user that are left out, one after the other."""


@torch.inference_mode()
def decisive_events(ranker: Ranker, items: Tensor, history: Tensor, types: Tensor) -> Tensor:
    """For each listed item the position in ``history`` of its reason, int64 ``[batch, n]``; -1 where there is none.

    ``items`` int64 ``[batch, n]``, ``history`` and ``types`` int64 ``[batch, seq]`` (0 is padding, left). There is none
    where the item scores as high or higher without any of the events that were tried. The one event of a short history
    is the reason for all that is listed.
    """
    batch, n = items.shape
    tried = _likely(ranker.unit, items, history)  # [batch, tried]
    count = tried.shape[1]
    shorter, kinds = (_without(part, tried).flatten(0, 1) for part in (history, types))  # [batch · tried, seq]
    listed = items.unsqueeze(1).expand(-1, count, -1)  # [batch, tried, n]
    without = ranker.scores_of(listed.flatten(0, 1), shorter, kinds).view(batch, count, n)
    loss = ranker.scores_of(items, history, types).unsqueeze(1) - without
    empty = (shorter == 0).all(dim=1).view(batch, count, 1)  # nothing to compare with
    loss = torch.where(empty, torch.inf, loss).masked_fill(~_real(history, tried).unsqueeze(2), -torch.inf)
    most, which = loss.max(dim=1)  # [batch, n]
    return torch.where(most > 0, tried.gather(1, which), -1)


def _likely(unit: Tensor, items: Tensor, history: Tensor) -> Tensor:
    """Positions ``[batch, tried]`` of the events to try: the newest, then those most like the listed items."""
    likeness = (unit[history] @ unit[items].mean(dim=1).unsqueeze(2)).squeeze(2)  # [batch, seq]
    likeness = likeness.masked_fill(history == 0, -torch.inf)
    likeness[:, -1] = torch.inf
    return likeness.topk(min(TRIED, history.shape[1]), dim=1).indices


def _real(history: Tensor, tried: Tensor) -> Tensor:
    return history.gather(1, tried) > 0


def _without(rows: Tensor, tried: Tensor) -> Tensor:
    """``rows`` ``[batch, seq]`` without one position each, ``[batch, tried, seq]``; what was before moves up by one."""
    seq = rows.shape[1]
    place = torch.arange(seq)
    source = place - (place <= tried.unsqueeze(2)).long()  # [batch, tried, seq]
    moved = rows.unsqueeze(1).expand(-1, tried.shape[1], -1).gather(2, source.clamp(min=0))
    return moved.masked_fill(source < 0, 0)
