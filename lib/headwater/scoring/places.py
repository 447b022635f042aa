"""The lists of some users as arrays, until the end, when they become rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

KINDS = {
    "item_idx": np.int64,
    "score": np.float64,
    "propensity": np.float64,
    "strategy": object,
    "because_idx": np.int64,
    "because_type": np.int64,
    "otherwise": object,
}


@dataclass(frozen=True)
class Lists:
    """Arrays ``[users, n]``, the columns of ``lists.PLACES`` without the rank; ``item_idx`` is 0 behind the end of a list."""

    item_idx: np.ndarray
    score: np.ndarray
    propensity: np.ndarray
    strategy: np.ndarray
    because_idx: np.ndarray
    because_type: np.ndarray
    otherwise: np.ndarray

    @classmethod
    def of(cls, item_idx: np.ndarray, **values: Any) -> Lists:
        """Lists of these items; ``values``: of each other field an array ``[users, n]`` or ``[users, 1]``, or one value for
        all places."""
        given = {"propensity": np.nan, "because_idx": 0, "because_type": 0, **values, "item_idx": item_idx}
        return cls(**{name: np.full(item_idx.shape, given[name], kind) for name, kind in KINDS.items()})

    def having(self, where: Any, **values: Any) -> Lists:
        """The same lists with other values at some places, ``where`` being any index of an array ``[users, n]``."""
        changed = {name: getattr(self, name).copy() for name in values}
        for name, column in changed.items():
            column[where] = values[name]
        return replace(self, **changed)

    def to_frame(self, users: np.ndarray, section: int) -> pd.DataFrame:
        """A row for each place with an item: user_id, section, rank from 1, and the fields."""
        listed = self.item_idx > 0
        user, place = np.nonzero(listed)
        columns = {name: getattr(self, name)[listed] for name in KINDS}
        rank = (place + 1).astype(np.int32)
        return pd.DataFrame({"user_id": users[user], "section": np.int32(section), "rank": rank, **columns})
