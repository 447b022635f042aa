"""The reason for a listed item: the past event whose removal lowers its score, and lowers it more than the rest of the list.

The removal is literal: the event is left out of the history, and the items are scored again. Doing that for each of fifty
events would cost fifty encodings per user, so only ``TRIED`` events are removed, one at a time: the newest, which weighs
most, then events similar to the listed items that the events chosen before are not similar to. Without the newest event
nearly all scores fall; it is the reason for an item whose score falls further than those of its neighbours, which is also
what changes its rank.

Without most events a score falls a little. A person would not call that a reason, so an event counts only if the score falls
by a good part (``LEAST_SHARE``) of the event's equal share of what the whole history adds to the score.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headwater.models.ranker import Ranker

TRIED = 3
"""The number of events per user that are removed, one at a time."""
LEAST_SHARE = 0.5
"""The least fall of a score without its reason, in equal shares of the events in what the history adds to the score. It is below
1 because evidence adds up as a logarithm: what is left of it makes up for a part of the loss."""


@torch.inference_mode()
def decisive_events(
    ranker: Ranker,
    items: Tensor,
    scores: Tensor,
    traces: Sequence[Tensor],
    history_part: Tensor,
    history: Tensor,
    context: Tensor,
    may_name: Tensor | None = None,
) -> Tensor:
    """The position in ``history`` of each listed item's reason, int64 ``[batch, n]``; -1 if there is none.

    ``items`` int64 ``[batch, n]``, 0 where a list is shorter; their ``scores`` (``Ranker.scores_of``), their ``traces``
    (``Evidence.traces``) and the ``history_part`` of the scores (``Ranker.history_part``) for ``history`` and ``context``, int64
    ``[batch, seq]``, left-padded with 0. ``may_name``, bool ``[batch, seq]``: the events that can be a reason, by default all.
    Among the tried events whose removal lowers an item's score by ``LEAST_SHARE`` of an equal share or more, its reason is the
    one that lowers it most, compared with the mean of the list. The only event of a history is the reason for all its items.
    """
    likeness = ranker.directions(history) @ ranker.directions(items).transpose(1, 2)
    events = _worth_trying(likeness, (history > 0) if may_name is None else (history > 0) & may_name)
    count = (history > 0).sum(dim=1)
    only = count.eq(1).reshape(-1, 1, 1)  # nothing to compare with
    user, tried = ((events >= 0) & ~only.squeeze(2)).nonzero(as_tuple=True)
    gone = events[user, tried]
    shorter, codes = (_without(part[user], gone) for part in (history, context))
    fewer = [_without(part[user], gone - history.shape[1] + part.shape[1]) for part in traces]
    fall = scores.new_zeros(*events.shape, items.shape[1])  # [batch, tried, n]
    fall[user, tried] = scores[user] - ranker.scores_of(items[user], ranker.query(shorter, codes), fewer)
    listed = (items > 0).unsqueeze(1)  # [batch, 1, n]
    least = LEAST_SHARE * history_part.clamp(min=0) / count.clamp(min=1).unsqueeze(1)  # [batch, n]
    counts = ((fall > 0) & (fall >= least.unsqueeze(1)) | only) & (events >= 0).unsqueeze(2) & listed
    beyond = fall - (fall * listed).sum(dim=2, keepdim=True) / listed.sum(dim=2, keepdim=True).clamp(min=1)
    best = beyond.masked_fill(~counts, -torch.inf).argmax(dim=1)  # [batch, n]
    return events.gather(1, best).masked_fill(~counts.any(dim=1), -1)


def _worth_trying(likeness: Tensor, left: Tensor) -> Tensor:
    """Positions of the events to remove, int64 ``[batch, TRIED]``, -1 if a history has no more: the newest, then greedily the
    one that adds most to the coverage of the list, the sum over items of the highest similarity to a chosen event.

    ``likeness`` ``[batch, seq, n]``: similarity of events and listed items; ``left``, bool ``[batch, seq]``: events that
    can be removed.
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
    """``rows`` ``[batch, seq, …]`` without the step at ``place`` ``[batch]``; earlier steps move up by one. A negative place
    removes nothing."""
    moved = rows.roll(1, dims=1)
    moved[:, 0] = 0
    gone = torch.arange(rows.shape[1]) <= place.unsqueeze(1)
    return torch.where(gone.reshape(gone.shape + (1,) * (rows.dim() - 2)), moved, rows)
