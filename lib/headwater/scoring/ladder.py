"""The rungs below the model: what fills a list that the model cannot, item by item and for one user at a time.

What is popular in the categories of a history, the most frequent first, then what is popular at all. Each row says by its
``strategy`` on which rung it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from headwater.scoring.catalogue import Catalogue

LATELY = "popular lately"
LOOKED_AT = 512
"""Items that are looked through at once."""

Row = tuple[int, float, str, str]
"""Item, score, strategy, and what is said as the reason."""

NOTHING: Row = (0, 0.0, "", "")


class Ladder:
    """Fills lists from a catalogue, with at most ``most`` items of one category in a list, 0: any number."""

    def __init__(self, catalogue: Catalogue, most: int = 0) -> None:
        self.catalogue, self.most = catalogue, most
        self.popular = catalogue.by_popularity()

    def fill(self, listed: np.ndarray, lowest: float, taken: np.ndarray, history: np.ndarray, count: int) -> list[Row]:
        """``count`` rows to stand below the items ``listed``: none of these, none of ``taken``; ``NOTHING`` where no
        more is left. A row scores one less than the row above, the first one less than ``lowest``, so that the scores
        of a list never rise.
        """
        fit = _Fit(self.catalogue.categories, np.concatenate([listed, taken]), self.most)
        for item in listed:
            fit.take(int(item))
        rows: list[Row] = []
        for item, strategy, why in islice(self._climb(history, fit), count):
            lowest -= 1.0
            rows.append((item, lowest, strategy, why))
        return rows + [NOTHING] * (count - len(rows))

    def _climb(self, history: np.ndarray, fit: _Fit) -> Iterator[tuple[int, str, str]]:
        for code in self.catalogue.categories_of(history):
            for item in fit.of(self.catalogue.popular_in[code]):
                yield item, "category_popular", f"popular in {self.catalogue.names[code]}"
        for item in fit.of(self.popular):
            yield item, "recent_popular", LATELY


class _Fit:
    """Which items may still join one list."""

    def __init__(self, categories: np.ndarray, taken: np.ndarray, most: int) -> None:
        self.categories, self.most = categories, most
        self.taken = set(taken.tolist())
        self.had: dict[int, int] = {}

    def take(self, item: int) -> None:
        self.taken.add(item)
        if self.most:
            for code in self.categories[item].tolist():
                self.had[code] = self.had.get(code, 0) + bool(code)

    def of(self, items: np.ndarray) -> Iterator[int]:
        """Those of ``items`` that fit, in their order; each is taken."""
        for start in range(0, len(items), LOOKED_AT):
            some = items[start : start + LOOKED_AT]
            full = self._full()
            if full:  # a catalogue of few categories would else be gone through item by item
                some = some[~np.isin(self.categories[some], full).any(axis=1)]
            for item in some.tolist():
                if item not in self.taken and not self._crowded(item):
                    self.take(item)
                    yield item

    def _full(self) -> list[int]:
        return [code for code, had in self.had.items() if had >= self.most]

    def _crowded(self, item: int) -> bool:
        return bool(self.most) and any(self.had.get(code, 0) >= self.most for code in self.categories[item].tolist())
