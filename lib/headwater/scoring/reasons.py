"""Why an item stands in a list: the past event without which it would score lower.

Taken literally: an event is left out of the history, the items are scored again, and what falls has its reason. Doing
that for each of fifty events would cost fifty encodings a user. So the newest event is left out first, then, as long as
more than a tenth of a list lacks a reason, the event that is most like what lacks one; ``TRIED`` events at most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headwater.models.ranker import Query, Ranker

TRIED = 4
"""Events of a user that are left out at most, one after the other."""
SPARED = 0.1
"""Share of a list that may lack a reason: the last of ten costs as much as all the others."""


@torch.inference_mode()
def decisive_events(ranker: Ranker, query: Query, items: Tensor, history: Tensor, context: Tensor) -> Tensor:
    """For each listed item the position in ``history`` of its reason, int64 ``[batch, n]``; -1 where there is none.

    ``items`` int64 ``[batch, n]``, 0 where a list is shorter; ``history`` and ``context`` int64 ``[batch, seq]`` (0 is
    padding, left), of which ``query`` was made. Of the events that were tried and without which the item scores lower,
    it is the one that costs most.
    The one event of a short history is the reason for all that is listed.
    """
    before = ranker.scores_of(items, query)
    most, which = torch.zeros_like(before), torch.full_like(items, -1)
    likeness = ranker.unit[history] @ ranker.unit[items].transpose(1, 2)  # [batch, seq, n]
    left = history > 0
    for _ in range(TRIED):
        lacking = (which < 0) & (items > 0)
        users = ((lacking.sum(dim=1) > SPARED * items.shape[1]) & left.any(dim=1)).nonzero().squeeze(1)
        if not len(users):
            break
        wanted = (likeness[users] * lacking[users].unsqueeze(1)).sum(dim=2)  # [users, seq]
        tried = wanted.masked_fill(~left[users], -torch.inf).argmax(dim=1)
        tried = torch.where(left[users, -1], history.shape[1] - 1, tried)
        left[users, tried] = False
        shorter, codes = (_without(part[users], tried) for part in (history, context))
        loss = before[users] - ranker.scores_of(items[users], ranker.query(shorter, codes))  # [users, n]
        loss[shorter[:, -1] == 0] = torch.inf  # nothing to compare with
        better = loss > most[users]
        most[users] = torch.where(better, loss, most[users])
        which[users] = torch.where(better, tried.unsqueeze(1), which[users])
    return which


def _without(rows: Tensor, place: Tensor) -> Tensor:
    """``rows`` ``[batch, seq]`` without the step at a place each, ``[batch]``; what was before moves up by one."""
    moved = rows.roll(1, dims=1)
    moved[:, 0] = 0
    return torch.where(torch.arange(rows.shape[1]) <= place.unsqueeze(1), moved, rows)
