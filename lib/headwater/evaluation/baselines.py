"""What every model must beat: popularity, recent popularity, item-to-item transitions, and where lists may hold what a user
had before, just that; no training, no knobs."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from torch import Tensor

from headwater.evaluation.ranking import Scores
from headwater.models.histories import left_padded
from headwater.models.neighbours import Neighbours
from headwater.models.transitions import WINDOW


def event_counts(steps: DataFrame, n_items: int, since: datetime | None = None) -> np.ndarray:
    """Events of each item, float64 ``[n_items + 1]``, from ``since`` on."""
    wanted = steps if since is None else steps.where(F.col("event_time") >= F.lit(since))
    counts = np.zeros(n_items + 1)
    for row in wanted.groupBy("item_idx").count().collect():
        counts[row["item_idx"]] = row["count"]
    return counts


def by_count(counts: np.ndarray) -> Scores:
    """The same scores for everybody; equal counts are told apart by the item index, lower first."""
    broken = counts - np.arange(len(counts)) / (2.0 * len(counts))
    row = torch.from_numpy(broken)

    def scores(items: list[np.ndarray], context: list[np.ndarray]) -> Tensor:
        return row.expand(len(items), -1)

    return scores


def by_transitions(transitions: Neighbours, counts: np.ndarray) -> Scores:
    """Transitions from the last few events; popularity decides where they say nothing."""
    fallback = torch.from_numpy(counts / (counts.sum() + 1) * 1e-6)

    def scores(items: list[np.ndarray], context: list[np.ndarray]) -> Tensor:
        return transitions.scores(torch.from_numpy(left_padded(items, WINDOW))).double() + fallback

    return scores


def by_own(counts: np.ndarray) -> Scores:
    """What a user did most often before; popularity decides among the rest, and where it is as often."""
    fallback = torch.from_numpy(counts / (counts.sum() + 1))

    def scores(items: list[np.ndarray], context: list[np.ndarray]) -> Tensor:
        found = fallback.repeat(len(items), 1)
        for row, history in zip(found, items, strict=True):
            known = torch.from_numpy(history[history < len(row)])
            row.index_add_(0, known, torch.ones(len(known), dtype=row.dtype))
        return found

    return scores


def recent_since(cut: datetime, days: int) -> datetime:
    return cut - timedelta(days=days)
