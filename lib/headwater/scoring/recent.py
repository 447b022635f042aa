"""What the scorer needs to know of the last weeks, counted from tables: as old as a site allows, and no part of a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyspark.sql import DataFrame

from headwater import popularity
from headwater.config import Topn
from headwater.scoring import newcomers, repeats
from headwater.scoring.newcomers import Newcomers
from headwater.scoring.repeats import Intervals


@dataclass(frozen=True)
class RecentCounts:
    """``popular``: decayed counts ``[items + 1]`` as of ``until``, the newest event in epoch seconds; ``again``: where
    items may be listed again, after how long they are bought again; ``newcomers``: what a model does not know yet."""

    popular: np.ndarray
    until: float = 0.0
    again: Intervals | None = None
    newcomers: Newcomers | None = None


def count(
    events: DataFrame,
    sequences: DataFrame,
    items: DataFrame,
    topn: Topn,
    known: int,
    before: RecentCounts | None = None,
) -> RecentCounts:
    """Counted from the tables of these names for a model that knows the items up to ``known``; buying again only where
    the config asks for it. ``before``: earlier counts for this model and the same ``items``, whose words are not read again."""
    popular, until = popularity.of_items(events, items, topn.popular_half_life_days)
    last = len(popular) - 1
    again = repeats.wanted(sequences, topn, last)
    words = None if before is None or before.newcomers is None else before.newcomers.alike
    return RecentCounts(popular, until, again, newcomers.count(sequences, items, known, last, words))
