"""What the scorer knows of items beside the model, as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from headwater.clock import DAY
from headwater.scoring.newcomers import Newcomers
from headwater.scoring.repeats import Intervals

MOST_CATEGORIES = 12
"""An item counts for this many of its categories, the first ones; real catalogues give it one to ten."""


@dataclass(frozen=True)
class Catalogue:
    """Arrays ``[max item_idx + 1]``; row 0 is no item.

    ``available``: bool, may be shown. ``popular``: float, decayed counts as of ``until``, the newest event in epoch
    seconds. ``categories``: int ``[max item_idx + 1, most]``, places in ``names``, 0 where an item has no more.
    ``first_seen``: float, epoch seconds. ``again``: of items that may be listed again, when they are bought again.
    ``newcomers``: what stood beside items that came after the model. ``price``: float, NaN where an item has none.
    ``denied``: for a group of users (``topn.strategies``) the items that it may not see, int.
    """

    available: np.ndarray
    popular: np.ndarray
    categories: np.ndarray
    first_seen: np.ndarray
    names: np.ndarray
    until: float = 0.0
    again: Intervals | None = None
    newcomers: Newcomers | None = None
    price: np.ndarray = field(default_factory=lambda: np.empty(0))
    denied: Mapping[str, np.ndarray] = field(default_factory=dict)

    def narrowed(self, categories: Sequence[str], denied: np.ndarray | None) -> Catalogue:
        """The same catalogue, of which only items of some categories may be shown, where any are named, and none that is
        denied."""
        if not categories and denied is None:
            return self
        available = self.available.copy()
        if categories:
            available &= np.isin(self.categories, np.flatnonzero(np.isin(self.names, categories))).any(axis=1)
        available[[] if denied is None else denied] = False
        return replace(self, available=available)

    def by_popularity(self) -> np.ndarray:
        """The items that may be shown, the most popular first, equals by index."""
        order = np.argsort(-self.popular, kind="stable")
        return order[self.available[order]]

    @cached_property
    def popular_in(self) -> list[np.ndarray]:
        """For each category what has been popular lately and may be shown, the most popular first."""
        order = self.by_popularity()
        order = order[self.popular[order] > 0]
        codes = self.categories[order]
        place, column = np.nonzero(codes)
        code = codes[place, column]
        by_code = np.argsort(code, kind="stable")
        return np.split(order[place[by_code]], np.searchsorted(code[by_code], np.arange(1, len(self.names))))

    def categories_of(self, items: np.ndarray) -> list[int]:
        """The categories of a history (oldest first), the most frequent first, of equals the newest."""
        known = self.categories[np.asarray(items, dtype=np.int64)[::-1]].ravel()
        return [code for code, _ in Counter(known[known > 0].tolist()).most_common()]

    def fresh(self, days: float) -> np.ndarray:
        """Bool: first seen in the last ``days`` before the newest item, and after the catalogue's own first day."""
        seen = self.first_seen[1:]
        if not len(seen):
            return np.zeros(1, dtype=bool)
        since = max(seen.max() - DAY * days, seen.min() + DAY)
        return np.concatenate([[False], seen >= since])


def split_categories(texts: Sequence[str], separator: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes ``[texts, most]`` and the names that they stand for, ascending; name 0 is that of no category.

    "Action|Comedy" is of two where "|" is the separator; without a separator a text is one name.
    """
    whole, code = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
    split = [text.split(separator) if separator else [text] for text in whole]
    parts = [list(dict.fromkeys(filter(None, map(str.strip, names))))[:MOST_CATEGORIES] for names in split]
    names = np.unique(["", *(name for some in parts for name in some)])
    codes = np.zeros((len(parts), max(map(len, parts), default=0) or 1), dtype=np.int32)
    for row, some in enumerate(parts):
        codes[row, : len(some)] = np.searchsorted(names, some)
    return codes[code], names
