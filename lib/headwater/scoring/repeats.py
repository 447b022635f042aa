"""Repeat purchases: the score bonus of items that a user bought before, by the days since the last purchase.

The modified Poisson-Gamma model of "Buy It Again" (Bhagat, Muralidharan, Lobzhanidze and Vishwanath, KDD 2018): the rate at
which a user buys an item again is highest once the user's usual interval has passed. The prior of a rate is one purchase per
interval of the item, measured over all users. Purchases on the same day count once, so that two lines of one order are one
purchase.
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

MAX_USERS = 200_000
"""The approximate maximum of users from whom intervals are estimated; a hash chooses them, so that they are always the same."""


@dataclass(frozen=True)
class Intervals:
    """For each item, ``[items + 1]``: the mean ``days`` between two purchases of one user, 0 if nobody bought it again, and
    the ``share`` of its buyers who did."""

    days: np.ndarray
    share: np.ndarray


def intervals_if_needed(sequences: DataFrame, topn: Topn, n_items: int) -> Intervals | None:
    """The intervals if lists may hold items that the user bought and the config has a bonus for them, else None."""
    if topn.exclude_seen or not topn.repeat.weight:
        return None
    return intervals(sequences, topn.repeat, n_items)


def intervals(sequences: DataFrame, rule: Repeat, n_items: int) -> Intervals:
    """Intervals estimated from ``sequences``, which hold the last events of each user."""
    one_in = sequences.count() // MAX_USERS + 1
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
    """The repeat bonus of each user, float32 ``[users, items + 1]``: ``rule.weight`` times the probability that the user buys
    the item again in the next ``rule.days``. ``now`` in epoch seconds ``[users]``.

    It is 0 if neither the user nor anybody else ever bought the item again.
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
    """The probability of another purchase in the ``ahead`` days after ``today``. ``times``: the number of days with a
    purchase; ``first`` and ``last``: the first and the last of them, day numbers like ``today``; ``days`` and ``share``:
    those of the item (``Intervals``).

    With k purchases, t days since the last and a mean interval of m days, the user's own if there were two purchases, else
    the item's, the rate is (k + 1) / (last - first + 2 |m - t| + days) while t < 2 m, then (k + 1) / (today - first + days):
    highest at t = m. It applies to users who buy again at all: a ``share`` of those with one purchase, and closer to all with
    every further purchase.
    """
    again = times - 1
    own = np.where(again > 0, (last - first) / np.maximum(again, 1), days)
    prior = np.where(days > 0, days, own)
    since = np.maximum(today - last, 0)
    open_for = np.where(since < 2 * own, last - first + 2 * np.abs(own - since), np.maximum(today - first, 0)) + prior
    rate = (times + 1) / np.maximum(open_for, 1)
    returns = (share + again) / (1 + again)
    return np.where(own > 0, returns * -np.expm1(-rate * ahead), 0.0)
