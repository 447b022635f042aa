"""Further lists of a user besides the Top-N: "Because you viewed …", "New for you", "Popular in …".

Sections are numbered in the order of the config. An item of the Top-N, or of one section, is in no later section. A section
with fewer than ``MIN_ITEMS`` items is left out, unless it is configured to hold fewer.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from headwater.config import FurtherList, Wording
from headwater.models.ranker import GATHER_BATCH, Ranker
from headwater.scoring.candidates import ExactIndex, cells
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.places import Lists
from headwater.scoring.users import Users

MIN_ITEMS = 3
TRANSITION_WEIGHT = 10.0
"""Weight of transitions relative to similarity: a tenth of an item's transitions counts as much as a cosine of 1."""


class Sections:
    """Makes the sections that the config asks for; the ranker knows all items of the catalogue."""

    def __init__(
        self, ranker: Ranker, catalogue: Catalogue, further: tuple[FurtherList, ...], wording: Wording
    ) -> None:
        self.ranker, self.catalogue, self.further, self.wording = ranker, catalogue, further, wording
        if further:
            self.shown = self._exact_index(catalogue.available)
            days = {kind.days for kind in further if kind.kind == "new"}
            self.fresh = {span: self._exact_index(catalogue.available & catalogue.fresh(span)) for span in days}

    def _exact_index(self, shown: np.ndarray) -> ExactIndex:
        rows = torch.from_numpy(np.flatnonzero(shown))
        matrix = torch.empty(len(rows), self.ranker.item_vectors.shape[1])
        for part, wanted in zip(matrix.split(GATHER_BATCH), rows.split(GATHER_BATCH), strict=True):
            part[:] = self.ranker.directions(wanted)
        return ExactIndex(self.ranker.size, rows, matrix)

    def lists(self, users: Users) -> Iterator[pd.DataFrame]:
        """The sections of users whose Top-N is made and part of ``users.excluded``, each as rows of ``Scorer.lists``."""
        number = 0
        for kind in self.further:
            for turn in range(kind.count):
                number += 1
                make = {"because": self._because, "new": self._new, "category": self._category}[kind.kind]
                lists = make(users, kind, turn)
                few = (lists.item_idx > 0).sum(axis=1) < min(MIN_ITEMS, kind.n)
                lists = lists.with_values(few, item_idx=0)
                users = users.also_excluding(lists.item_idx)
                yield lists.to_frame(users.ids, number)

    def _because(self, users: Users, kind: FurtherList, turn: int) -> Lists:
        """Items that followed the item of an event, and those most similar to it: of the newest event, then of the one before."""
        place = _newest_different(users.history * users.may_name, turn)
        anchor = users.history.gather(1, place.clamp(min=0)) * (place >= 0)  # [users, 1]
        bonus = None
        if self.ranker.transitions is not None:
            bonus = cells(
                self.ranker.transitions.matrix[anchor.flatten().numpy().copy()] * np.float32(TRANSITION_WEIGHT)
            )
        blocked = users.also_excluding(anchor.numpy()).blocked()  # where items are listed again, it is most like itself
        scores, items = self.shown.best(self.ranker.directions(anchor.flatten()), kind.n, blocked, bonus)
        because_idx, because_type = users.events_at(place)
        return Lists.of(
            (items * (anchor > 0)).numpy(),
            score=scores.numpy(),
            strategy="because",
            because_idx=because_idx,
            because_type=because_type,
            otherwise="",
        )

    def _new(self, users: Users, kind: FurtherList, turn: int) -> Lists:
        """Items that are new in the catalogue and like the user's events, by similarity; the newest event counts most."""
        ages = torch.arange(users.history.shape[1] - 1, -1, -1)
        events = self.ranker.directions(users.history * users.may_name)  # [users, seq, dim]; padding is zero
        taste = (events * 0.8 ** ages.unsqueeze(1)).sum(dim=1)  # [users, dim]
        # where items are listed again, what the user had is most like the history
        unseen = users.excluding_seen().blocked()
        scores, items = self.fresh[kind.days].best(normalize(taste, dim=1), kind.n, unseen)
        like = (items * (scores > 0)).numpy()
        return Lists.of(like, score=scores.numpy(), strategy="new", otherwise=self.wording.new)

    def _category(self, users: Users, kind: FurtherList, turn: int) -> Lists:
        """Popular items of the user's most frequent category, then of the next."""
        items = np.zeros((len(users), kind.n), dtype=np.int64)
        reasons = np.full((len(users), 1), "", dtype=object)
        for user, steps in enumerate(users.steps.items()):
            favourites = self.catalogue.categories_of(steps)
            if len(favourites) > turn:
                excluded = users.excluded[user]
                popular = self.catalogue.popular_in[code := favourites[turn]][: kind.n + len(excluded)]
                fit = popular[~np.isin(popular, excluded)][: kind.n]
                items[user, : len(fit)] = fit
                reasons[user] = self.wording.popular_in(self.catalogue.names[code])
        return Lists.of(items, score=self.catalogue.popular[items], strategy="category_popular", otherwise=reasons)


def _newest_different(history: Tensor, turn: int) -> Tensor:
    """The last position in the history of each user's ``turn``-th newest item, from 0: ``[users, 1]``, -1 where there is none."""
    again = (history.unsqueeze(2) == history.unsqueeze(1)).triu(diagonal=1).any(dim=2)  # the same item comes later
    different = (history > 0) & ~again
    newest = different.flip(1).cumsum(dim=1).flip(1)  # how many different ones from here to the newest
    wanted = different & (newest == turn + 1)
    return torch.where(wanted.any(dim=1), wanted.long().argmax(dim=1), -1).unsqueeze(1)
