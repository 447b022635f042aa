"""The lists of some users as arrays, which become rows at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

PLACES = {
    "rank": "int",
    "item_idx": "int",
    "score": "double",
    "propensity": "double",
    "strategy": "string",
    "because_idx": "int",
    "because_type": "int",
    "otherwise": "string",
}
"""The columns of a place in a list and their Spark types. ``rank`` counts from 1; ``propensity`` is the probability of this
item in this place under exploration, null in lists without it; ``because_idx`` and ``because_type`` are the event behind the
place, 0 if there is none; ``otherwise`` is the reason shown in that case."""
NUMPY = {"int": np.int64, "double": np.float64, "string": object}
FIELDS = {name: NUMPY[kind] for name, kind in PLACES.items() if name != "rank"}
"""The arrays of ``Lists`` and their types; the rank of a place is its position."""


@dataclass(frozen=True)
class Lists:
    """Arrays ``[users, n]``, one for each of ``FIELDS``; ``item_idx`` is 0 after the end of a list."""

    item_idx: np.ndarray
    score: np.ndarray
    propensity: np.ndarray
    strategy: np.ndarray
    because_idx: np.ndarray
    because_type: np.ndarray
    otherwise: np.ndarray

    @classmethod
    def of(cls, item_idx: np.ndarray, **values: Any) -> Lists:
        """Lists of these items; ``values``: for each other field an array ``[users, n]`` or ``[users, 1]``, or one value for
        all places."""
        given = {"propensity": np.nan, "because_idx": 0, "because_type": 0, **values, "item_idx": item_idx}
        return cls(**{name: np.full(item_idx.shape, given[name], kind) for name, kind in FIELDS.items()})

    def with_values(self, where: Any, **values: Any) -> Lists:
        """The same lists with other values at some places, ``where`` being any index of an array ``[users, n]``."""
        changed = {name: getattr(self, name).copy() for name in values}
        for name, column in changed.items():
            column[where] = values[name]
        return replace(self, **changed)

    def to_frame(self, users: np.ndarray, section: int) -> pd.DataFrame:
        """A row for each place with an item: user_id, section, rank from 1, and the fields."""
        listed = self.item_idx > 0
        user, place = np.nonzero(listed)
        columns = {name: getattr(self, name)[listed] for name in FIELDS}
        rank = (place + 1).astype(np.int32)
        return pd.DataFrame({"user_id": users[user], "section": np.int32(section), "rank": rank, **columns})
