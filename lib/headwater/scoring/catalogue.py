"""The scorer's data about items, apart from the model, as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from headwater.clock import DAY
from headwater.scoring.newcomers import Newcomers
from headwater.scoring.repeats import Intervals

MOST_CATEGORIES = 12
"""Only this many categories of an item count; items of real catalogues have one to ten."""


@dataclass(frozen=True)
class Catalogue:
    """Arrays ``[max item_idx + 1]``; row 0 is padding.

    ``available``: bool, may be shown. ``popular``: float, decayed event counts as of ``until``, the time of the newest event
    in epoch seconds. ``categories``: int ``[max item_idx + 1, most]``, indices of ``names``, padded with 0. ``first_seen``:
    float, epoch seconds. ``intervals``: repurchase intervals, if lists may hold items that the user bought before. ``newcomers``:
    evidence about items that the model was not trained on. ``price``: float, NaN if an item has none. ``denied``: the items, int,
    that nobody may see; ``denied_to``: further ones by the name of a group of users (``topn.strategies``).
    """

    available: np.ndarray
    popular: np.ndarray
    categories: np.ndarray
    first_seen: np.ndarray
    names: np.ndarray
    until: float = 0.0
    intervals: Intervals | None = None
    newcomers: Newcomers | None = None
    price: np.ndarray = field(default_factory=lambda: np.empty(0))
    denied: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    denied_to: Mapping[str, np.ndarray] = field(default_factory=dict)

    def narrowed(
        self, categories: Sequence[str], denied: np.ndarray | None, deny_categories: Sequence[str] = ()
    ) -> Catalogue:
        """The same catalogue, in which only items of ``categories``, if any are named, and neither ``denied`` items nor those of
        ``deny_categories`` may be shown."""
        available = self.available.copy()
        if categories:
            available &= self._has_any(categories)
        if deny_categories:
            available &= ~self._has_any(deny_categories)
        available[[] if denied is None else denied] = False
        return self if (available == self.available).all() else replace(self, available=available)

    def _has_any(self, categories: Sequence[str]) -> np.ndarray:
        """Bool ``[max item_idx + 1]``: items of one of these categories."""
        codes = np.flatnonzero(np.isin(self.names, [name for name in categories if name]))
        return np.isin(self.categories, codes).any(axis=1)

    def may_name(self, items: np.ndarray) -> np.ndarray:
        """Bool, of the shape of ``items``: which of them a reason or a heading may name. What must not be listed should not be
        mentioned either."""
        return ~np.isin(items, self.denied)

    def by_popularity(self) -> np.ndarray:
        """The items that may be shown, the most popular first, ties by index."""
        order = np.argsort(-self.popular, kind="stable")
        return order[self.available[order]]

    @cached_property
    def popular_in(self) -> list[np.ndarray]:
        """For each category the recently popular items that may be shown, the most popular first."""
        order = self.by_popularity()
        order = order[self.popular[order] > 0]
        codes = self.categories[order]
        place, column = np.nonzero(codes)
        code = codes[place, column]
        by_code = np.argsort(code, kind="stable")
        return np.split(order[place[by_code]], np.searchsorted(code[by_code], np.arange(1, len(self.names))))

    def categories_of(self, items: np.ndarray) -> list[int]:
        """The categories of a history (oldest first), the most frequent first, of equally frequent ones the newest, and of those of
        one item the one with the fewest items: "Python" before "Programming"."""
        known = self._narrow_first[np.asarray(items, dtype=np.int64)[::-1]].ravel()
        return [code for code, _ in Counter(known[known > 0].tolist()).most_common()]

    @cached_property
    def _narrow_first(self) -> np.ndarray:
        """``categories``, those of an item ordered by their number of items, ascending."""
        size = np.bincount(self.categories.ravel(), minlength=len(self.names))
        size[0] = self.categories.size + 1  # padding stays last
        return np.take_along_axis(self.categories, np.argsort(size[self.categories], axis=1, kind="stable"), axis=1)

    def fresh(self, days: float) -> np.ndarray:
        """Bool: items first seen at most ``days`` before the newest item, and at least one day after the oldest."""
        seen = self.first_seen[1:]
        if not len(seen):
            return np.zeros(1, dtype=bool)
        since = max(seen.max() - DAY * days, seen.min() + DAY)
        return np.concatenate([[False], seen >= since])


def split_categories(texts: Sequence[str], separator: str, first: Container[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Category codes ``[texts, most]`` and the names that they stand for, ascending; code 0, the empty name, is no category.

    "Action|Comedy" names two categories if "|" is the separator; without a separator a text is one name. Of an item with more
    than ``MOST_CATEGORIES``, those in ``first`` are kept, and then those that it names first.
    """
    whole, code = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
    split = [text.split(separator) if separator else [text] for text in whole]
    distinct = (dict.fromkeys(filter(None, map(str.strip, names))) for names in split)
    parts = [sorted(names, key=lambda name: name not in first)[:MOST_CATEGORIES] for names in distinct]
    names = np.unique(["", *(name for some in parts for name in some)])
    codes = np.zeros((len(parts), max(map(len, parts), default=0) or 1), dtype=np.int32)
    for row, some in enumerate(parts):
        codes[row, : len(some)] = np.searchsorted(names, some)
    return codes[code], names
