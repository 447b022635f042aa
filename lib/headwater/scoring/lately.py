"""What the scorer needs to know of the last weeks, counted from tables: as old as a site allows, and no part of a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyspark.sql import DataFrame

from headwater import popularity
from headwater import sequences as histories
from headwater.config import Topn
from headwater.scoring import repeats
from headwater.scoring.repeats import Intervals


@dataclass(frozen=True)
class Lately:
    """``popular``: decayed counts ``[items + 1]`` as of ``until``, the newest event in epoch seconds; ``again``: where
    items may be listed again, after how long they are bought again."""

    popular: np.ndarray
    until: float = 0.0
    again: Intervals | None = None


def count(events: DataFrame, sequences: DataFrame, items: DataFrame, topn: Topn) -> Lately:
    """Counted from the tables of these names; buying again only where the config asks for it."""
    popular, until = popularity.of_items(events, items, topn.popular_half_life_days)
    wanted = topn.repeat.weight > 0 and not topn.exclude_seen
    again = repeats.intervals(sequences, topn.repeat, histories.last_index(items)) if wanted else None
    return Lately(popular, until, again)
