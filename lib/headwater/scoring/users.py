"""The users of a scoring batch: their events, and the items that must not be shown to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from headwater.models import context as event_context
from headwater.models.histories import flat
from headwater.schemas import EVENT_TYPES


@dataclass(frozen=True)
class Steps:
    """The events of all users in flat arrays, user after user, oldest first: ``user``, the position of the user, int64;
    ``item`` and ``type`` (1 + its position in ``EVENT_TYPES``), int64; ``at``, epoch seconds; ``value``, NaN if there is
    none. Those of a user begin at ``start`` ``[users + 1]``."""

    start: np.ndarray
    user: np.ndarray
    item: np.ndarray
    type: np.ndarray
    at: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Steps:
        """The steps of rows with item_idx, event_type (names), at (epoch seconds) and value, arrays of equal length in each
        row."""
        count = np.array([len(items) for items in frame["item_idx"]], dtype=np.int64)
        start = np.concatenate([[0], np.cumsum(count)])
        types = {name: code for code, name in enumerate(EVENT_TYPES, 1)}
        named = _joined(frame["event_type"], object)
        return cls(
            start,
            np.repeat(np.arange(len(count)), count),
            _joined(frame["item_idx"], np.int64),
            np.fromiter(map(types.__getitem__, named), np.int64, len(named)),
            _joined(frame["at"], np.float64),
            _joined(frame["value"], np.float64),
        )

    def of_types(self, names: Sequence[str]) -> np.ndarray:
        """Bool: the steps of one of these event types."""
        return np.isin(self.type, [EVENT_TYPES.index(name) + 1 for name in names])

    def disliked(self, rating: float | None) -> np.ndarray:
        """Bool: the steps with an item whose last rating by the user is this value or less; none if there is no such value."""
        if rating is None:
            return np.zeros(len(self.item), dtype=bool)
        pair = self.user * (self.item.max(initial=0) + 1) + self.item  # user and item as one number
        rated = np.flatnonzero(self.of_types(["rating"]))[::-1]
        pairs, last = np.unique(pair[rated], return_index=True)
        return np.isin(pair, pairs[self.value[rated[last]] <= rating])

    def count(self) -> np.ndarray:
        """The number of steps per user, int64 ``[users]``."""
        return np.diff(self.start)

    def items(self) -> list[np.ndarray]:
        """The items of each user, oldest first."""
        return np.split(self.item, self.start[1:-1])

    def types(self) -> list[np.ndarray]:
        """The event types of each user, oldest first."""
        return np.split(self.type, self.start[1:-1])

    def context(self) -> np.ndarray:
        """The context code of each step (``models.context``)."""
        return event_context.pack(self.type, self.at, self.value, np.diff(self.user, prepend=-1) > 0)

    def oldest(self) -> np.ndarray:
        """The time of each user's first step, ``[users]``; ``inf`` if there is none."""
        return self._at(self.start[:-1], np.inf)

    def of_users(self, users: np.ndarray) -> Steps:
        """The steps of some users, given by ascending positions."""
        kept = np.isin(self.user, users)
        start = np.concatenate([[0], np.cumsum(self.count()[users])])
        user = np.searchsorted(users, self.user[kept])
        return Steps(start, user, self.item[kept], self.type[kept], self.at[kept], self.value[kept])

    def newest(self) -> np.ndarray:
        """The time of each user's last step, ``[users]``; ``-inf`` if there is none."""
        return self._at(self.start[1:] - 1, -np.inf)

    def items_of_users(self, which: np.ndarray | None = None) -> list[np.ndarray]:
        """For each user the distinct items of all steps, or of those in the mask ``which``, ascending."""
        user, item = (self.user, self.item) if which is None else (self.user[which], self.item[which])
        size = int(item.max(initial=0)) + 1
        key = np.unique(user * size + item)
        return np.split(key % size, np.searchsorted(key, np.arange(1, len(self.start) - 1) * size))

    def _at(self, place: np.ndarray, otherwise: float) -> np.ndarray:
        some = np.append(self.at, otherwise)
        return np.where(self.count() > 0, some[np.clip(place, 0, len(self.at))], otherwise)


def _joined(arrays: pd.Series, kind: type) -> np.ndarray:
    return np.concatenate([*map(np.asarray, arrays), np.empty(0, kind)]).astype(kind)


def _pairs(items: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    rows, flat_items = map(torch.from_numpy, flat(items))
    return rows, flat_items


@dataclass(frozen=True)
class Users:
    """``steps``: the events of the users, including those with items that the model does not know; ``history`` and
    ``context``: the items and codes of the known ones, int64 ``[users, seq]``, left-padded; ``may_name``, bool of that shape:
    the events that a reason or a heading may name; ``seen``: for each user all items of earlier events, int64; ``excluded``:
    for each user the items that must not be listed."""

    ids: np.ndarray
    steps: Steps
    history: Tensor
    context: Tensor
    may_name: Tensor
    seen: list[np.ndarray]
    excluded: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, places: np.ndarray) -> Users:
        """Some of the users, given by ascending positions."""
        seen, excluded = ([part[place] for place in places] for part in (self.seen, self.excluded))
        history, context, may_name = (part[places] for part in (self.history, self.context, self.may_name))
        return Users(self.ids[places], self.steps.of_users(places), history, context, may_name, seen, excluded)

    def also_excluding(self, items: np.ndarray) -> Users:
        """The same users, with ``items`` ``[users, n]`` excluded too; 0 is none."""
        return replace(
            self, excluded=[np.union1d(old, new[new > 0]) for old, new in zip(self.excluded, items, strict=True)]
        )

    def excluding_seen(self) -> Users:
        """The same users, with all items that they have ever seen excluded too."""
        return replace(self, excluded=list(map(np.union1d, self.excluded, self.seen)))

    def blocked(self) -> tuple[Tensor, Tensor]:
        """The excluded items as pairs: rows and items, int64 ``[pairs]`` each."""
        return _pairs(self.excluded)

    def have_seen(self, items: Tensor) -> Tensor:
        """Bool, of the shape of ``items`` (int64 ``[users, n]``): whether each user has seen the item."""
        rows, seen = _pairs(self.seen)
        size = int(max(items.max(), seen.max())) + 1 if len(seen) else 1
        return torch.isin(torch.arange(len(self)).unsqueeze(1) * size + items, rows * size + seen)

    def events_at(self, place: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Items and event types at positions of the history ``[users, n]``, of the same shape; 0 where the position is -1."""
        kinds = event_context.part(self.context, "event_type")
        items, types = ((part.gather(1, place.clamp(min=0)) * (place >= 0)).numpy() for part in (self.history, kinds))
        return items, types
