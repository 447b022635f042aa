"""A small share of places for items that little is known of, drawn by lot, with the odds of each place.

The lot of an item is a hash of user, history, model and item: the same inputs draw the same list, whoever is scored beside
and whenever, and the next event or the next model draws anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from headwater.config import Explore
from headwater.scoring.catalogue import Catalogue

TO_DRAW_FROM = 20
"""How many of the items that little is known of a user's lot is drawn from: those that fit them best, half of them items
without any event lately, which lose to all others by what a hybrid knows of these."""


def little_known(catalogue: Catalogue, rule: Explore) -> list[Tensor]:
    """The items, ascending, that may be shown and had fewer than ``rule.events`` events lately: of these the
    ``rule.items`` that came last, equals by index. Those without any event are apart from the others, where there are both.
    """
    found = np.flatnonzero(catalogue.available & (catalogue.popular < rule.events))
    newest = np.argsort(-catalogue.first_seen[found], kind="stable")[: rule.items]
    few = np.sort(found[newest])
    met = catalogue.popular[few] > 0
    halves = [half for half in (few[~met], few[met]) if len(half)] or [few]
    return list(map(torch.from_numpy, halves))


def with_room(found: np.ndarray, listed: np.ndarray, categories: np.ndarray, most: int, given: int) -> np.ndarray:
    """Of the items ``found`` ``[users, candidates]`` those of whose categories no more than ``most`` stand in a list even with
    ``given`` items beside ``listed`` ``[users, n]``; 0 in the place of the others. ``categories``: see ``Catalogue``."""
    span = int(categories.max(initial=0)) + 1
    first = np.arange(len(listed))[:, None, None] * span
    standing, asked = categories[listed], categories[found]
    pairs = np.sort((first + standing)[standing > 0])
    had = np.searchsorted(pairs, first + asked, side="right") - np.searchsorted(pairs, first + asked)
    return np.where(((asked == 0) | (had + given <= most)).all(axis=2), found, 0)


def seeds(users: np.ndarray, history_time: np.ndarray, model: int) -> np.ndarray:
    """A seed for the list of each user, uint64 ``[users]``: of its name, the time of its last event, and the model."""
    names = pd.util.hash_array(np.asarray(users, dtype=object), categorize=False)
    times = np.nan_to_num(history_time, neginf=0.0).astype(np.float64).view(np.uint64)
    return _mixed(names ^ _mixed(times ^ _mixed(np.full(len(times), model))))


@dataclass(frozen=True)
class Drawn:
    """Lists ``[users, n]``: ``items`` that were drawn, 0 where the place stays as it is, and the ``propensity`` of what now
    stands there: the chance that it would, had the lot been drawn again."""

    items: np.ndarray
    propensity: np.ndarray


def draw(seed: np.ndarray, items: np.ndarray, share: float, n: int) -> Drawn:
    """Give ``share`` of the places of lists of ``n``, the last ones, to some of ``items`` ``[users, candidates]``, 0 is none.

    The share is that of all users together: what of it is not a whole place in a list goes to so many of them by lot. Each
    candidate has the same chance at each of the places.
    """
    whole, part = divmod(share * n, 1)
    many = np.count_nonzero(items, axis=1)
    given = np.minimum(int(whole) + (_uniform(seed) < part), many)
    lots = np.where(items > 0, _uniform(seed[:, None] ^ _mixed(items)), -1.0)
    order = np.argsort(-lots, axis=1, kind="stable")
    column = np.arange(n) - (n - given[:, None])  # which of the drawn stands at a place, below 0: none
    drawn = np.take_along_axis(np.take_along_axis(items, order, axis=1), np.maximum(column, 0), axis=1)
    from_end = n - 1 - np.arange(n)
    chance = np.where(from_end < int(whole), 1.0, np.where(from_end == int(whole), part, 0.0))  # that a place is given
    chance = np.where(from_end < many[:, None], chance, 0.0)
    propensity = np.where(column >= 0, chance / np.maximum(many, 1)[:, None], 1.0 - chance)
    return Drawn(np.where(column >= 0, drawn, 0), propensity)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014): every bit of the input moves every bit of the output."""
    with np.errstate(over="ignore"):
        x = np.asarray(numbers, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _uniform(numbers: np.ndarray) -> np.ndarray:
    """From 0 to below 1, by the upper 53 bits."""
    return (_mixed(numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53
