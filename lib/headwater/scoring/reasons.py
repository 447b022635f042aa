"""Why an item stands in a list: the past event without which it would fall, and fall further than the rest of the list.

Taken literally: an event is left out of the history and the items are scored again. Doing that for each of fifty events would
cost fifty encodings a user. So ``TRIED`` events are left out, each by itself: the newest, which weighs most, then those that
are like what the ones before are unlike. Without the newest nearly everything falls; what makes it the reason for one item
and not for another is how far that item falls beyond its neighbours, which is also what moves it from its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headwater.models.ranker import Ranker

TRIED = 3
"""Events of a user that are left out, each by itself."""


@torch.inference_mode()
def decisive_events(
    ranker: Ranker, items: Tensor, scores: Tensor, traces: Sequence[Tensor], history: Tensor, context: Tensor
) -> Tensor:
    """For each listed item the position in ``history`` of its reason, int64 ``[batch, n]``; -1 where there is none.

    ``items`` int64 ``[batch, n]``, 0 where a list is shorter, their ``scores`` (``Ranker.scores_of``) and their ``traces``
    (``Evidence.traces``) with ``history`` and ``context``, int64 ``[batch, seq]`` (0 is padding, left). Of the events that
    were tried and without which the item scores lower, it is the one without which it falls furthest beyond the list's
    mean. The one event of a short history is the reason for all that is listed.
    """
    events = _worth_trying(ranker.directions(history) @ ranker.directions(items).transpose(1, 2), history > 0)
    only = (history > 0).sum(dim=1).eq(1).reshape(-1, 1, 1)  # nothing to compare with
    user, tried = ((events >= 0) & ~only.squeeze(2)).nonzero(as_tuple=True)
    gone = events[user, tried]
    shorter, codes = (_without(part[user], gone) for part in (history, context))
    fewer = [_without(part[user], gone - history.shape[1] + part.shape[1]) for part in traces]
    fall = scores.new_zeros(*events.shape, items.shape[1])  # [batch, tried, n]
    fall[user, tried] = scores[user] - ranker.scores_of(items[user], ranker.query(shorter, codes), fewer)
    listed = (items > 0).unsqueeze(1)  # [batch, 1, n]
    counts = ((fall > 0) | only) & (events >= 0).unsqueeze(2) & listed
    beyond = fall - (fall * listed).sum(dim=2, keepdim=True) / listed.sum(dim=2, keepdim=True).clamp(min=1)
    best = beyond.masked_fill(~counts, -torch.inf).argmax(dim=1)  # [batch, n]
    return events.gather(1, best).masked_fill(~counts.any(dim=1), -1)


def _worth_trying(likeness: Tensor, left: Tensor) -> Tensor:
    """Places of the events to leave out, int64 ``[batch, TRIED]``, -1 where a history has no more: the newest, then as often
    the one that adds most to how alike the listed items are to any that was taken.

    ``likeness`` ``[batch, seq, n]`` of events and listed items; ``left``, bool ``[batch, seq]``, what of a history is real.
    """
    user, seq = torch.arange(len(left)), left.shape[1]
    left = left.clone()
    taken = [torch.where(left[:, -1], seq - 1, -1)]
    covered = likeness[:, -1]
    for _ in range(TRIED - 1):
        left[user, taken[-1]] = False
        gain = (likeness - covered.unsqueeze(1)).clamp(min=0).sum(dim=2)  # [batch, seq]
        event = gain.masked_fill(~left, -torch.inf).argmax(dim=1)
        covered = torch.maximum(covered, likeness[user, event])
        taken.append(torch.where(left.any(dim=1), event, -1))
    return torch.stack(taken, dim=1)


def _without(rows: Tensor, place: Tensor) -> Tensor:
    """``rows`` ``[batch, seq, …]`` without the step at a place each, ``[batch]``; what was before moves up by one. A place
    before the first is none of them."""
    moved = rows.roll(1, dims=1)
    moved[:, 0] = 0
    gone = torch.arange(rows.shape[1]) <= place.unsqueeze(1)
    return torch.where(gone.reshape(gone.shape + (1,) * (rows.dim() - 2)), moved, rows)
