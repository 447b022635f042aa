"""Full-catalogue ranking for held-out users, without sampled negatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headwater.evaluation.cases import HeldOut
from headwater.models.histories import flat
from headwater.models.variety import Variety

Scores = Callable[[list[np.ndarray], list[np.ndarray]], Tensor]
"""Histories (items and their ``models.context``; one array per user) → scores ``[users, items + 1]``; column 0 is padding."""

AS_RANKED = Variety()
"""Lists are the best items, without re-ranking for variety."""

UNRANKED = np.iinfo(np.int64).max
USERS, SCORES = 256, 1 << 24
"""The maximum numbers of users ranked at once and of scores in memory for them: 128 MiB in float64."""


@dataclass(frozen=True)
class Ranking:
    """``ranks``: for each user the ranks of the targets, from 1, ascending, UNRANKED if it is beyond ``width``, or if the model
    does not know the item or has no score for it; ``lists``: the first ``width`` items, int64 ``[users, width]``, padded with 0."""

    ranks: list[np.ndarray]
    lists: np.ndarray


def rank(
    scores: Scores,
    held: HeldOut,
    width: int,
    *,
    variety: Variety = AS_RANKED,
    unit: Tensor | None = None,
    batch: int = USERS,
) -> Ranking:
    """Rank all items that the user has not seen. Ties count against the model: a target is ranked below all other items of
    its score.

    If ``variety`` has a weight, lists are re-ranked by the item vectors ``unit`` ``[items + 1, dim]``, and a target that is
    not in the list is ranked below it. The cap of ``variety`` has no effect: categories are not known here.
    """
    wide = variety.width(width) if variety.weight else width
    ranks: list[np.ndarray] = []
    lists = np.zeros((len(held), width), dtype=np.int64)
    for start in range(0, len(held), batch):
        stop = min(start + batch, len(held))
        rows = scores(held.items[start:stop], held.context[start:stop]).clone()
        rows[rows.isnan()] = -torch.inf  # a comparison with NaN is false, which would rank it first
        rows[:, 0] = -torch.inf
        rows[_pairs(held.seen[start:stop], rows.shape[1])] = -torch.inf
        places = _pairs(held.targets[start:stop], rows.shape[1])
        wanted = rows[places]
        ranks += _ranks(rows, places[0], wanted, [len(targets) for targets in held.targets[start:stop]], width)
        if variety.weight:  # of tied items the target is picked last
            rows[places] = wanted.nextafter(wanted.new_tensor(-torch.inf))
        values, items = rows.topk(min(wide, rows.shape[1]), dim=1)
        if variety.weight:
            assert unit is not None, "re-ranking for variety needs item vectors"
            values, items = variety.pick(values, items, min(width, items.shape[1]), unit.__getitem__)
        lists[start:stop, : items.shape[1]] = items.masked_fill(values == -torch.inf, 0).numpy()
        if variety.weight:
            for user in range(start, stop):
                ranks[user] = _ranks_in(lists[user], held.targets[user], ranks[user])
    return Ranking(ranks, lists)


def places_in(listed: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Ranks of targets in one list of items, from 1, ascending; UNRANKED for targets that are not in it."""
    places = {int(item): place for place, item in enumerate(listed, 1) if item}
    return np.sort(np.array([places.get(int(item), UNRANKED) for item in targets], dtype=np.int64))


def _pairs(items: list[np.ndarray], size: int) -> tuple[Tensor, Tensor]:
    """Rows and columns, int64 ``[pairs]``, of the ``items`` of users that are among the first ``size``."""
    user, item = flat(items)
    return torch.from_numpy(user[item < size]), torch.from_numpy(item[item < size])


def _ranks(rows: Tensor, user: Tensor, wanted: Tensor, targets: list[int], width: int) -> list[np.ndarray]:
    """``Ranking.ranks`` of users with so many ``targets``, from their scores ``rows`` and those of the known targets, ``wanted``
    of each ``user``, both ``[pairs]``.

    Each rank counts the scores that reach the target's. Only a target that scores more than the first ``width + 1`` items at
    their lowest can have one up to ``width``, so there are at most ``width`` of these for each user.
    """
    top = rows.topk(min(width + 1, rows.shape[1]), dim=1).values
    lowest = top[:, width] if top.shape[1] > width else top.new_full((len(top),), -torch.inf)
    above = wanted > lowest[user]
    user, wanted = user[above], wanted[above]
    place = (top[user] >= wanted.unsqueeze(1)).sum(dim=1)
    each = np.split(place.numpy(), np.searchsorted(user.numpy(), np.arange(1, len(rows))))
    return [
        np.concatenate([np.sort(found), np.full(count - len(found), UNRANKED)])
        for found, count in zip(each, targets, strict=True)
    ]


def _ranks_in(listed: np.ndarray, targets: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Ranks of targets after re-ranking, given their ``ranks`` before it."""
    found = places_in(listed, targets)
    inside = found[found < UNRANKED]
    beyond = np.maximum(ranks, len(listed) + 1)
    # targets are interchangeable: those in the list replace the best ranks
    return np.sort(np.concatenate([inside, beyond[len(inside) :]]))
