"""Fallbacks that fill the places which the model leaves empty, one user at a time.

In this order: items that followed the last events of a history, if those are with items newer than the model; popular items
in the categories of the history, the most frequent category first; popular items overall. A row's ``strategy`` names its
fallback.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from scipy import sparse

from headwater.config import Wording
from headwater.models.histories import flat
from headwater.models.transitions import DECAY, WINDOW
from headwater.scoring.catalogue import Catalogue

CHECKED_AT_ONCE = 512
"""The number of items checked at once."""


class Row(NamedTuple):
    """A place of a list: ``because_idx`` and ``because_type`` are the event behind it, 0 if there is none; ``otherwise`` is
    the reason shown in that case."""

    item_idx: int
    score: float
    strategy: str
    because_idx: int = 0
    because_type: int = 0
    otherwise: str = ""


EMPTY = Row(0, 0.0, "")


class Ladder:
    """Fills lists from a catalogue, with at most ``most`` items of one category in a list; 0 means no limit."""

    def __init__(self, catalogue: Catalogue, most: int = 0, wording: Wording | None = None) -> None:
        self.catalogue, self.most, self.wording = catalogue, most, wording or Wording()
        self.popular = catalogue.by_popularity()
        self.place = np.full(len(catalogue.available), len(catalogue.available))
        self.place[self.popular] = np.arange(len(self.popular))

    def listed_anyway(self, listed: np.ndarray, excluded: Sequence[np.ndarray]) -> np.ndarray:
        """Bool ``[users, n]``: which listed items would be in a list of length n for popularity alone, whatever the user did.

        ``listed`` int64 ``[users, n]``, 0 where a list is shorter; ``excluded``: for each user the items that must not be
        listed, int64.
        """
        users, n = listed.shape
        user, item = flat(excluded)
        known = item < len(self.place)
        span = len(self.place) + 1
        gone = np.unique(user[known] * span + self.place[item[known]])  # user and place as one number
        place, first = self.place[listed], np.arange(users)[:, None] * span
        ahead = np.searchsorted(gone, first + place) - np.searchsorted(gone, first)
        return (listed > 0) & (place - ahead < n)

    def fill(
        self,
        listed: np.ndarray,
        lowest: float,
        excluded: Sequence[np.ndarray],
        history: np.ndarray,
        types: np.ndarray,
        count: int,
    ) -> list[Row]:
        """``count`` rows to append to the items ``listed``, which are not repeated. The items in the first array of ``excluded``
        are excluded; if too few others are left, only those of the next array are. ``EMPTY`` fills the rest.

        A row scores one less than the row above, the first one less than ``lowest``, so that the scores of a list never rise.
        ``history`` and ``types``: items and types of events, oldest first.
        """
        rows: list[Row] = []
        for some in excluded:
            above = np.concatenate([listed, [row.item_idx for row in rows]]).astype(np.int64)
            fit = _Fit(self.catalogue.categories, np.concatenate([above, some]), self.most)
            for item in above:
                fit.take(int(item))
            rows += islice(self._climb(history, types, fit), count - len(rows))
            if len(rows) == count:
                break
        scored = [row._replace(score=lowest - k) for k, row in enumerate(rows, 1)]
        return scored + [EMPTY] * (count - len(rows))

    def _climb(self, history: np.ndarray, types: np.ndarray, fit: _Fit) -> Iterator[Row]:
        followers, events = self._followers(history)
        cause = dict(zip(followers.tolist(), events.tolist(), strict=True))
        for item in fit.of(followers):
            yield Row(item, 0.0, "item_transitions", int(history[cause[item]]), int(types[cause[item]]))
        for code in self.catalogue.categories_of(history):
            for item in fit.of(self.catalogue.popular_in[code]):
                yield Row(item, 0.0, "category_popular", otherwise=self.wording.popular_in(self.catalogue.names[code]))
        for item in fit.of(self.popular):
            yield Row(item, 0.0, "recent_popular", otherwise=self.wording.popular)

    def _followers(self, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The items that followed the newcomers among the last events and may be shown, by descending share, ties by item;
        and for each the position in ``history`` of the event that it followed most. An event has half the weight of the one
        after it."""
        met = self.catalogue.newcomers
        place = np.arange(max(len(history) - WINDOW, 0), len(history))
        row = np.full(len(place), -1) if met is None else met.places(history[place])
        fit = (row >= 0) & self.catalogue.may_name(history[place])
        place, row = place[fit], row[fit]
        if met is None or not len(place):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        weights = sparse.diags(DECAY ** (len(history) - 1.0 - place))
        shares = (weights @ met.followed[row]).tocoo()  # [events, items + 1]
        shown = self.catalogue.available[shares.col]
        event, item, share = shares.row[shown], shares.col[shown], shares.data[shown]
        items, number = np.unique(item, return_inverse=True)
        order = np.lexsort((event, -share, number))
        most = event[order][
            np.searchsorted(number[order], np.arange(len(items)))
        ]  # the event that each item followed most
        best = np.argsort(-np.bincount(number, share), kind="stable")
        return items[best].astype(np.int64), place[most[best]]


class _Fit:
    """The items that may still be added to one list."""

    def __init__(self, categories: np.ndarray, taken: np.ndarray, most: int) -> None:
        self.categories, self.most = categories, most
        self.taken = set(taken.tolist())
        self.per_category: dict[int, int] = {}

    def take(self, item: int) -> None:
        self.taken.add(item)
        if self.most:
            for code in self.categories[item].tolist():
                self.per_category[code] = self.per_category.get(code, 0) + bool(code)

    def of(self, items: np.ndarray) -> Iterator[int]:
        """The ``items`` that fit, in their order; each is taken as it is yielded."""
        for start in range(0, len(items), CHECKED_AT_ONCE):
            some = items[start : start + CHECKED_AT_ONCE]
            full = self._full()
            if full:  # otherwise a catalogue of few categories would be searched item by item
                some = some[~np.isin(self.categories[some], full).any(axis=1)]
            for item in some.tolist():
                if item not in self.taken and not self._crowded(item):
                    self.take(item)
                    yield item

    def _full(self) -> list[int]:
        return [code for code, count in self.per_category.items() if count >= self.most]

    def _crowded(self, item: int) -> bool:
        return bool(self.most) and any(
            self.per_category.get(code, 0) >= self.most for code in self.categories[item].tolist()
        )
