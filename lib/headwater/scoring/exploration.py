"""Exploration: a small share of places for randomly drawn items with few events, with the propensity of each place.

The random numbers are hashes of user, history, model and item: the same inputs give the same list, whatever the batch and the
time, and the next event or the next model causes a new draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from headwater.config import Explore
from headwater.scoring.catalogue import Catalogue

CANDIDATES = 20
"""The number of candidates for each user's draw, those with the best scores. Where there are both kinds, half of them are
items without any recent event, which the others would outrank, because a hybrid knows more about those."""


def little_known(catalogue: Catalogue, rule: Explore) -> list[Tensor]:
    """The items that may be shown and have a recent count below ``rule.events``; of these the ``rule.items`` that were first
    seen last, ties by index.

    If there are items with and without recent events, those without are a separate tensor, the first; each tensor is
    ascending.
    """
    found = np.flatnonzero(catalogue.available & (catalogue.popular < rule.events))
    newest = np.argsort(-catalogue.first_seen[found], kind="stable")[: rule.items]
    few = np.sort(found[newest])
    met = catalogue.popular[few] > 0
    halves = [half for half in (few[~met], few[met]) if len(half)] or [few]
    return list(map(torch.from_numpy, halves))


def within_cap(found: np.ndarray, listed: np.ndarray, categories: np.ndarray, cap: int, given: int) -> np.ndarray:
    """The items ``found`` ``[users, candidates]``, with 0 in place of those that could break a category limit: an item stays
    if none of its categories would have more than ``cap`` items after adding ``given`` to those ``listed`` ``[users, n]``.
    ``categories``: see ``Catalogue``."""
    span = int(categories.max(initial=0)) + 1
    first = np.arange(len(listed))[:, None, None] * span
    present, added = categories[listed], categories[found]
    pairs = np.sort((first + present)[present > 0])
    count = np.searchsorted(pairs, first + added, side="right") - np.searchsorted(pairs, first + added)
    return np.where(((added == 0) | (count + given <= cap)).all(axis=2), found, 0)


def seeds(users: np.ndarray, history_time: np.ndarray, model: int) -> np.ndarray:
    """A seed for each user's list, uint64 ``[users]``, from the user id, the time of the last event and the model."""
    names = pd.util.hash_array(np.asarray(users, dtype=object), categorize=False)
    times = np.nan_to_num(history_time, neginf=0.0).astype(np.float64).view(np.uint64)
    return _mixed(names ^ _mixed(times ^ _mixed(np.full(len(times), model))))


@dataclass(frozen=True)
class Drawn:
    """``items`` ``[users, n]``: the drawn items, 0 where a place keeps its item; ``propensity`` ``[users, n]``: the
    probability that another draw would put the same item in the place."""

    items: np.ndarray
    propensity: np.ndarray


def draw(seed: np.ndarray, items: np.ndarray, share: float, n: int) -> Drawn:
    """Give ``share`` of the places of lists of length ``n``, the last ones, to some of ``items`` ``[users, candidates]``, 0
    is none.

    The share holds over all users: if ``share * n`` is not a whole number, a random part of the users gets one more place.
    Each candidate has the same probability for each of the places.
    """
    whole, part = divmod(share * n, 1)
    many = np.count_nonzero(items, axis=1)
    given = np.minimum(int(whole) + (_uniform(seed) < part), many)
    lots = np.where(items > 0, _uniform(seed[:, None] ^ _mixed(items)), -1.0)
    order = np.argsort(-lots, axis=1, kind="stable")
    column = np.arange(n) - (n - given[:, None])  # index of the drawn item in a place, negative: none
    drawn = np.take_along_axis(np.take_along_axis(items, order, axis=1), np.maximum(column, 0), axis=1)
    from_end = n - 1 - np.arange(n)
    chance = np.where(from_end < int(whole), 1.0, np.where(from_end == int(whole), part, 0.0))  # that a place is drawn
    chance = np.where(from_end < many[:, None], chance, 0.0)
    propensity = np.where(column >= 0, chance / np.maximum(many, 1)[:, None], 1.0 - chance)
    return Drawn(np.where(column >= 0, drawn, 0), propensity)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014): every bit of the input affects every bit of the output."""
    with np.errstate(over="ignore"):
        x = np.asarray(numbers, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _uniform(numbers: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), from the upper 53 bits."""
    return (_mixed(numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53
