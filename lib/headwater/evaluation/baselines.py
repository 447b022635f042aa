"""Baselines that every model must beat, without training or hyperparameters: popularity, recent popularity, item-to-item
transitions and, where lists may hold items that a user had before, the user's own most frequent items."""

from __future__ import annotations

import math
from datetime import datetime

import numpy as np
import torch
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from scipy import sparse
from torch import Tensor

from headwater.evaluation.ranking import Scores
from headwater.models.histories import left_padded
from headwater.models.neighbours import Neighbours
from headwater.models.transitions import DECAY, WINDOW, shares

MAX_PAIRS = 20_000_000
"""The maximum number of item pairs that transitions bring to the driver: it bounds memory for any number of users."""


def event_counts(steps: DataFrame, n_items: int, since: datetime | None = None) -> np.ndarray:
    """Events per item, float64 ``[n_items + 1]``; only those from ``since`` on, if given."""
    wanted = steps if since is None else steps.where(F.col("event_time") >= F.lit(since))
    counts = np.zeros(n_items + 1)
    for row in wanted.groupBy("item_idx").count().collect():
        counts[row["item_idx"]] = row["count"]
    return counts


def by_count(counts: np.ndarray) -> Scores:
    """The same scores for all users; ties go to the lower item index."""
    untied = counts - np.arange(len(counts)) / (2.0 * len(counts))
    row = torch.from_numpy(untied)

    def scores(items: list[np.ndarray], context: list[np.ndarray]) -> Tensor:
        return row.expand(len(items), -1)

    return scores


def transitions(steps: DataFrame, n_items: int, pairs: int = MAX_PAIRS) -> Neighbours:
    """``models.transitions`` of all users' steps, counted in Spark. For each item only its most frequent followers are kept,
    so that the whole catalogue has about ``pairs`` at most."""
    oldest_first = Window.partitionBy("user_id").orderBy("event_time", "event_id")
    unit = math.lcm(*range(1, WINDOW + 1))  # the sum of integers does not depend on their order
    earlier = [
        F.struct(F.lag("item_idx", gap).over(oldest_first).alias("item"), F.lit(unit // gap).alias("weight"))
        for gap in range(1, WINDOW + 1)
    ]
    both = steps.withColumn("earlier", F.array(*earlier)).select("item_idx", F.explode("earlier").alias("before"))
    met = both.where(F.col("before.item") != F.col("item_idx"))
    followed = met.groupBy(F.col("before.item").alias("item"), F.col("item_idx").alias("next")).agg(
        F.sum("before.weight").alias("weight")
    )
    most_first = F.row_number().over(Window.partitionBy("item").orderBy(F.desc("weight"), "next"))
    kept = followed.withColumn("place", most_first).where(F.col("place") <= max(1, pairs // n_items))
    found = kept.select("item", "next", F.col("weight").cast("float").alias("weight")).toArrow()
    item, following, weight = (found[name].to_numpy() for name in ("item", "next", "weight"))
    total = sparse.csr_matrix((weight, (item, following)), shape=(n_items + 1, n_items + 1))
    return Neighbours(shares(total), WINDOW, DECAY)


def by_transitions(follows: Neighbours, counts: np.ndarray) -> Scores:
    """Transitions from the last few events; popularity breaks ties and ranks items without any."""
    fallback = torch.from_numpy(counts / (counts.sum() + 1) * 1e-6)

    def scores(items: list[np.ndarray], context: list[np.ndarray]) -> Tensor:
        return follows.scores(torch.from_numpy(left_padded(items, WINDOW))).double() + fallback

    return scores


def by_own(counts: np.ndarray) -> Scores:
    """The items that a user had most often before; popularity breaks ties and ranks the other items."""
    fallback = torch.from_numpy(counts / (counts.sum() + 1))

    def scores(items: list[np.ndarray], context: list[np.ndarray]) -> Tensor:
        found = fallback.repeat(len(items), 1)
        for row, history in zip(found, items, strict=True):
            known = torch.from_numpy(history[history < len(row)])
            row.index_add_(0, known, torch.ones(len(known), dtype=row.dtype))
        return found

    return scores
