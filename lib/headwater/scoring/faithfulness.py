"""Tests the reasons of lists: the named item is removed from the history, and the place that names it is scored again."""

from __future__ import annotations

import torch
from torch import Tensor

from headwater.models.ranker import Ranker

METRICS = ("explained", "reason_holds", "chance_holds")
"""The names of the results of ``shares`` in ``model_metrics``."""


@torch.inference_mode()
def shares(ranker: Ranker, history: Tensor, context: Tensor, items: Tensor, because: Tensor) -> dict[str, float]:
    """How well the reasons of lists hold, by the names of ``METRICS``; empty if no place can be tested.

    ``items`` and the items that their reasons name (``because``), int64 ``[users, n]``, 0 is none; ``history`` and
    ``context`` int64 ``[users, seq]``, left-padded. ``explained``: the share of places that name an item; ``reason_holds``:
    the share of these that score lower if the user never had that item; ``chance_holds``: the share of the same places that
    score lower if the user never had the item of a randomly drawn event. Users whose history has only one item are left out:
    there is nothing to compare it with.

    ``scoring.reasons`` names only events whose removal lowers the score, so ``reason_holds`` is below 1 only if an item
    occurs several times in a history.
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
    """Bool ``[pairs, n]``: which listed items of each ``user`` score lower without the item ``gone``; both int64 ``[pairs]``."""
    rest = (history[user] > 0) & (history[user] != gone.unsqueeze(1))
    order = rest.int().argsort(dim=1, stable=True)  # padding first, then the remaining events, oldest first
    shorter, codes = ((part[user] * rest).gather(1, order) for part in (history, context))
    return ranker.scores_of(items[user], ranker.query(shorter, codes)) < scores[user]
