"""Do the reasons of lists hold? A named item is taken out of the history, and the place that names it is scored again."""

from __future__ import annotations

import torch
from torch import Tensor

from headwater.models.ranker import Ranker

METRICS = ("explained", "reason_holds", "chance_holds")
"""The names in ``model_metrics`` of what ``shares`` finds."""


@torch.inference_mode()
def shares(ranker: Ranker, history: Tensor, context: Tensor, items: Tensor, because: Tensor) -> dict[str, float]:
    """What lists say of themselves, by the names of ``METRICS``; empty where no list can tell.

    ``items`` and the items that they are listed ``because`` of, int64 ``[users, n]``, 0 is none; ``history`` and ``context``
    int64 ``[users, seq]``, left-padded. ``explained``: the share of places that name an item; ``reason_holds``: of these the
    share that scores lower when the user never had that item; ``chance_holds``: of the same places the share that scores lower
    when the user never had the item of an event drawn from the history. Users with one item have nothing to compare it with,
    and are left out.

    ``scoring.reasons`` names no event whose loss lowers nothing, so ``reason_holds`` falls short of 1 only where an item came
    several times.
    """
    several = ((history > 0) & (history != history[:, -1:])).any(dim=1)
    history, context, items, because = (part[several] for part in (history, context, items, because))
    listed = items > 0
    user, place = (listed & (because > 0)).nonzero(as_tuple=True)
    if not len(user):
        return {}
    scores = ranker.scores_of(items, ranker.query(history, context))
    size = int(history.max()) + 1
    pairs, which = (user * size + because[user, place]).unique(return_inverse=True)
    named = _falls(ranker, history, context, items, scores, pairs // size, pairs % size)
    every = torch.arange(len(history))
    drawn = torch.rand(len(history), generator=torch.Generator().manual_seed(1)) * (history > 0).sum(dim=1)
    by_chance = _falls(ranker, history, context, items, scores, every, history[every, -1 - drawn.long()])
    hold = float(named[which, place].float().mean()), float(by_chance[user, place].float().mean())
    return dict(zip(METRICS, (len(user) / int(listed.sum()), *hold), strict=True))


def _falls(
    ranker: Ranker, history: Tensor, context: Tensor, items: Tensor, scores: Tensor, user: Tensor, gone: Tensor
) -> Tensor:
    """Which of a user's listed items score lower without an item each, bool ``[pairs, n]`` for int64 ``[pairs]``."""
    rest = (history[user] > 0) & (history[user] != gone.unsqueeze(1))
    order = rest.int().argsort(dim=1, stable=True)  # padding first, then what is left, oldest first
    shorter, codes = ((part[user] * rest).gather(1, order) for part in (history, context))
    return ranker.scores_of(items[user], ranker.query(shorter, codes)) < scores[user]
