"""Further lists of a user beside the Top-N: "Because you viewed …", "New for you", "Popular in …".

Sections are numbered in the order of the config; what stands in one, or in the Top-N, stands in none after it. A section
with fewer than ``FEWEST`` items is left out, two goods are no shelf, unless it is to hold no more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from headwater.config import FurtherList
from headwater.models.ranker import Ranker
from headwater.scoring.candidates import ExactIndex, cells
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.users import Users

FEWEST = 3
FOLLOWED = 10.0
"""How much what followed an item counts beside what is like it: a tenth of all that followed weighs as a cosine of 1."""


class Sections:
    """Makes the sections of users that the config asks for; the ranker knows all items of the catalogue."""

    def __init__(self, ranker: Ranker, catalogue: Catalogue, further: tuple[FurtherList, ...]) -> None:
        self.ranker, self.catalogue, self.further = ranker, catalogue, further
        if further:
            self.vectors = ranker.unit
            self.live = self._among(catalogue.available)
            days = {kind.days for kind in further if kind.kind == "new"}
            self.fresh = {span: self._among(catalogue.available & catalogue.fresh(span)) for span in days}

    def _among(self, shown: np.ndarray) -> ExactIndex:
        rows = torch.from_numpy(np.flatnonzero(shown))
        return ExactIndex(len(self.vectors), rows, self.vectors[rows])

    def lists(self, users: Users) -> Iterator[pd.DataFrame]:
        """The sections of users who have their Top-N behind them (``users.seen``), each as ``Scorer.lists`` has them."""
        number = 0
        for kind in self.further:
            for turn in range(kind.count):
                number += 1
                make = {"because": self._because, "new": self._new, "category": self._category}[kind.kind]
                frame, items = make(users, number, kind, turn)
                full = (items > 0).sum(axis=1) >= min(FEWEST, kind.n)
                users = users.having_seen(items * full[:, None])
                yield frame[(frame["item_idx"] > 0) & np.repeat(full, kind.n)]

    def _because(self, users: Users, number: int, kind: FurtherList, turn: int) -> tuple[pd.DataFrame, np.ndarray]:
        """What followed the item of an event, and what is most like it: the newest event first, then the one before."""
        place = _newest_different(users.history, turn)
        anchor = users.history.gather(1, place.clamp(min=0)) * (place >= 0)  # [users, 1]
        bonus = None
        if self.ranker.transitions is not None:
            bonus = cells(self.ranker.transitions.matrix[anchor.flatten().numpy().copy()] * np.float32(FOLLOWED))
        scores, items = self.live.best(self.vectors[anchor.flatten()], kind.n, users.blocked(), bonus)
        items = items * (anchor > 0)
        frame = users.rows(number, items, scores)
        frame["strategy"] = "because"
        frame["because_idx"], frame["because_type"] = users.events_at(place.expand(-1, kind.n))
        frame["otherwise"] = ""
        return frame, items.numpy()

    def _new(self, users: Users, number: int, kind: FurtherList, turn: int) -> tuple[pd.DataFrame, np.ndarray]:
        """What came to the catalogue lately, by how like it is to what the user did; the newest event counts most."""
        ages = torch.arange(users.history.shape[1] - 1, -1, -1)
        taste = (self.vectors[users.history] * 0.8 ** ages.unsqueeze(1)).sum(dim=1)  # [users, dim]; padding is zero
        scores, items = self.fresh[kind.days].best(normalize(taste, dim=1), kind.n, users.blocked())
        frame = users.rows(number, items, scores)
        return frame.assign(
            strategy="new", because_idx=0, because_type=0, otherwise="new in the catalogue"
        ), items.numpy()

    def _category(self, users: Users, number: int, kind: FurtherList, turn: int) -> tuple[pd.DataFrame, np.ndarray]:
        """What is popular in the category that a user comes back to most, then in the next."""
        items = np.zeros((len(users), kind.n), dtype=np.int64)
        said = np.full(len(users), "", dtype=object)
        for user, steps in enumerate(users.steps.items()):
            favourites = self.catalogue.categories_of(steps)
            if len(favourites) > turn:
                popular = self.catalogue.popular_in[code := favourites[turn]]
                fit = popular[~np.isin(popular, users.seen[user])][: kind.n]
                items[user, : len(fit)] = fit
                said[user] = f"popular in {self.catalogue.names[code]}"
        scores = self.catalogue.popular[items]
        frame = users.rows(number, torch.from_numpy(items), torch.from_numpy(scores))
        frame = frame.assign(strategy="category_popular", because_idx=0, because_type=0, otherwise=said.repeat(kind.n))
        return frame, items


def _newest_different(history: Tensor, turn: int) -> Tensor:
    """Where each user's ``turn``-th newest item, from 0, stands last in the history, ``[users, 1]``; -1 where there is none."""
    again = (history.unsqueeze(2) == history.unsqueeze(1)).triu(diagonal=1).any(dim=2)  # the same item comes later
    different = (history > 0) & ~again
    newest = different.flip(1).cumsum(dim=1).flip(1)  # how many different ones from here to the newest
    wanted = different & (newest == turn + 1)
    return torch.where(wanted.any(dim=1), wanted.long().argmax(dim=1), -1).unsqueeze(1)
