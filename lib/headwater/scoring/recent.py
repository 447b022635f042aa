"""Counts of recent events for the scorer; they come from tables, not from a model, and are as old as the config allows."""

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
    """``popular``: decayed event counts ``[items + 1]`` as of ``until``, the time of the newest event in epoch seconds;
    ``intervals``: repurchase intervals, if the config has a bonus for repeat purchases; ``newcomers``: evidence about items
    that the model was not trained on."""

    popular: np.ndarray
    until: float = 0.0
    intervals: Intervals | None = None
    newcomers: Newcomers | None = None


def count(
    events: DataFrame,
    sequences: DataFrame,
    items: DataFrame,
    topn: Topn,
    trained: np.ndarray,
    before: RecentCounts | None = None,
) -> RecentCounts:
    """Counts from the tables of these names, for a model with vectors for the ``trained`` items (``Ranker.trained``); repeat
    purchases are counted only if the config asks for it. ``before``: earlier counts for the same model and ``items``, whose
    words are not read again.

    Items of the model's own catalogue that had no event in its training are newcomers only where ``topn`` may list them.
    """
    popular, until = popularity.of_items(events, items, topn.popular_half_life_days)
    last = len(popular) - 1
    intervals = repeats.intervals_if_needed(sequences, topn, last)
    with_vectors = trained if topn.lists_newcomers else np.ones_like(trained)
    words = None if before is None or before.newcomers is None else before.newcomers.alike
    return RecentCounts(popular, until, intervals, newcomers.count(sequences, items, with_vectors, popular, words))
