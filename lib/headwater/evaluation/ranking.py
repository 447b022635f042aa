"""Full-catalogue ranking for held-out users, without sampled negatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headwater.evaluation.cases import HeldOut
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
    """``ranks``: for each user the ranks of the targets, from 1, ascending, UNRANKED if the model does not know the item or
    has no score for it; ``lists``: the first ``width`` items, int64 ``[users, width]``, padded with 0."""

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
    ranks, lists = [], np.zeros((len(held), width), dtype=np.int64)
    for start in range(0, len(held), batch):
        stop = min(start + batch, len(held))
        rows = scores(held.items[start:stop], held.context[start:stop]).clone()
        rows[rows.isnan()] = -torch.inf  # a comparison with NaN is false, which would rank it first
        rows[:, 0] = -torch.inf
        for row, user in enumerate(range(start, stop)):
            seen = held.seen[user]
            rows[row, torch.from_numpy(seen[seen < rows.shape[1]])] = -torch.inf
            target = held.targets[user]
            found = np.full(len(target), UNRANKED)
            known = target < rows.shape[1]
            place = torch.from_numpy(target[known])
            wanted = rows[row, place]
            found[known] = _places(rows[row], wanted).masked_fill(wanted == -torch.inf, UNRANKED).numpy()
            ranks.append(np.sort(found))
            if variety.weight:  # of tied items the target is picked last
                rows[row, place] = wanted.nextafter(wanted.new_tensor(-torch.inf))
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


def _places(row: Tensor, wanted: Tensor) -> Tensor:
    """The number of scores in ``row`` that reach each of ``wanted``, ``[targets]``, without a targets × items matrix."""
    ascending, order = wanted.sort()
    row = row[row >= min(wanted.tolist(), default=torch.inf)]  # all others reach none of them
    reached = torch.searchsorted(ascending, row, right=True)
    places = len(row) - reached.bincount(minlength=len(wanted) + 1).cumsum(0)[:-1]
    return places[order.argsort()]


def _ranks_in(listed: np.ndarray, targets: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Ranks of targets after re-ranking, given their ``ranks`` before it."""
    found = places_in(listed, targets)
    inside = found[found < UNRANKED]
    beyond = np.maximum(ranks, len(listed) + 1)
    # targets are interchangeable: those in the list replace the best ranks
    return np.sort(np.concatenate([inside, beyond[len(inside) :]]))
