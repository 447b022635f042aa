"""What the scorer knows of items beside the model, as arrays."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Catalogue:
    """Arrays ``[max item_idx + 1]``; row 0 is no item.

    ``available``: bool, may be shown. ``popular``: float, decayed counts. ``category``: int, its place in ``names``,
    0 where an item has none. ``first_seen``: float, epoch seconds.
    """

    available: np.ndarray
    popular: np.ndarray
    category: np.ndarray
    first_seen: np.ndarray
    names: np.ndarray

    def by_popularity(self) -> np.ndarray:
        """The items that may be shown, the most popular first, equals by index."""
        order = np.argsort(-self.popular, kind="stable")
        return order[self.available[order]]

    @cached_property
    def popular_in(self) -> list[np.ndarray]:
        """For each category what has been popular lately and may be shown, the most popular first."""
        order = self.by_popularity()
        order = order[self.popular[order] > 0]
        order = order[np.argsort(self.category[order], kind="stable")]
        return np.split(order, np.searchsorted(self.category[order], np.arange(1, len(self.names))))

    def categories_of(self, items: np.ndarray) -> list[int]:
        """The categories of a history (oldest first), the most frequent first, of equals the newest."""
        known = self.category[np.asarray(items, dtype=np.int64)]
        return [code for code, _ in Counter(reversed(known[known > 0].tolist())).most_common()]

    def newcomers(self, days: float) -> np.ndarray:
        """Bool: first seen in the last ``days`` before the newest item, and after the catalogue's own first day."""
        seen = self.first_seen[1:]
        if not len(seen):
            return np.zeros(1, dtype=bool)
        since = max(seen.max() - 86_400 * days, seen.min() + 86_400)
        return np.concatenate([[False], seen >= since])
