"""Buying again: how much the score of an item that a user bought before rises, and with the days since falls and rises.

The modified Poisson-Gamma model of "Buy It Again" (Bhagat, Muralidharan, Lobzhanidze and Vishwanath, KDD 2018): a user
buys an item again at a rate that is highest when their usual interval has gone by. The prior of a rate is one purchase in
the item's own interval, which is that of all users together; days count, so that two lines of one order are one purchase.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from headwater.clock import DAY
from headwater.config import Repeat, Topn
from headwater.scoring.users import Steps

USERS = 200_000
"""About how many users tell the items' intervals, chosen by hash, so that they are the same ones every time."""


@dataclass(frozen=True)
class Intervals:
    """Of each item, ``[items + 1]``: the mean ``days`` between two purchases of one user, 0 where nobody came back, and
    the ``share`` of its buyers who did."""

    days: np.ndarray
    share: np.ndarray


def wanted(sequences: DataFrame, topn: Topn, n_items: int) -> Intervals | None:
    """The intervals where lists may hold what a user bought and the config lets it rise; None elsewhere."""
    if topn.exclude_seen or not topn.repeat.weight:
        return None
    return intervals(sequences, topn.repeat, n_items)


def intervals(sequences: DataFrame, rule: Repeat, n_items: int) -> Intervals:
    """Counted from ``sequences``, which hold the last events of each user."""
    one_in = sequences.count() // USERS + 1
    some = sequences.where(F.pmod(F.xxhash64("user_id"), F.lit(one_in)) == 0)
    steps = some.select("user_id", F.explode(F.arrays_zip("item_idx", "event_type", "event_time")).alias("step"))
    bought = steps.where(F.col("step.event_type").isin(*rule.event_types) & (F.col("step.item_idx") <= n_items))
    day = F.unix_date(F.to_date("step.event_time"))
    each = bought.groupBy("user_id", F.col("step.item_idx").alias("item_idx")).agg(
        F.countDistinct(day).alias("times"), (F.max(day) - F.min(day)).alias("days")
    )
    found = (
        each.groupBy("item_idx")
        .agg(
            F.try_divide(F.sum("days"), F.sum(F.col("times") - 1)).alias("days"),
            F.avg((F.col("times") > 1).cast("double")).alias("share"),
        )
        .where(F.col("days").isNotNull())
        .toPandas()
    )
    days, share = np.zeros((2, n_items + 1))
    days[found["item_idx"]], share[found["item_idx"]] = found["days"], found["share"]
    return Intervals(days, share)


def bonus(steps: Steps, known: Intervals, rule: Repeat, now: np.ndarray) -> sparse.csr_matrix:
    """What buying again adds to scores, float32 ``[users, items + 1]``: ``rule.weight`` times the chance that the user buys
    the item again in the next ``rule.days``. ``now`` in epoch seconds ``[users]``.

    Nothing where neither the user nor anybody else ever came back for the item.
    """
    shape = (len(now), len(known.days))
    meant = steps.of_types(rule.event_types) & (steps.item < shape[1])
    day = np.floor(steps.at[meant] / DAY)
    bought = np.unique(np.stack([steps.user[meant], steps.item[meant], day.astype(np.int64)]), axis=1)
    pairs, first, times = np.unique(bought[:2], axis=1, return_index=True, return_counts=True)
    user, item = pairs
    begun = bought[2, first]
    last = bought[2, first + times - 1] if len(first) else begun
    chance = chances(times, begun, last, np.floor(now / DAY)[user], known.days[item], known.share[item], rule.days)
    return sparse.csr_matrix(((rule.weight * chance).astype(np.float32), (user, item)), shape=shape)


def chances(
    times: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    today: np.ndarray,
    days: np.ndarray,
    share: np.ndarray,
    ahead: float,
) -> np.ndarray:
    """The chance of another purchase in the ``ahead`` days after ``today``, for purchases on so many days (``times``), the
    ``first`` and the ``last`` of them; ``days`` and ``share`` are the item's, of all users. All days count from one day.

    With k purchases, t days since the last and m days from one to the next, of this user where there were two, the rate
    is (k + 1) / (last - first + 2 |m - t| + days) until 2 m are gone, then (k + 1) / (today - first + days): highest when m
    days are gone. It holds for those who come back at all: of those who bought once a ``share``, which every purchase
    after that brings nearer to one.
    """
    again = times - 1
    own = np.where(again > 0, (last - first) / np.maximum(again, 1), days)
    prior = np.where(days > 0, days, own)
    since = np.maximum(today - last, 0)
    open_for = np.where(since < 2 * own, last - first + 2 * np.abs(own - since), np.maximum(today - first, 0)) + prior
    rate = (times + 1) / np.maximum(open_for, 1)
    returns = (share + again) / (1 + again)
    return np.where(own > 0, returns * -np.expm1(-rate * ahead), 0.0)
