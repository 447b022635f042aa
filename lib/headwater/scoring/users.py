"""Some users on their way through the scorer: what they did, and what must not be shown to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor


@dataclass(frozen=True)
class Users:
    """``steps``: each user's items, oldest first, also those that the model does not know; ``history`` and ``types``
    int64 ``[users, seq]``, what it knows of them, left-padded; ``seen``: an int64 array a user, each item once."""

    ids: np.ndarray
    steps: list[np.ndarray]
    history: Tensor
    types: Tensor
    seen: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)

    def having_seen(self, items: np.ndarray) -> Users:
        """The same users, who must not be shown ``items`` ``[users, n]`` either; 0 is none."""
        return replace(self, seen=[np.union1d(old, new[new > 0]) for old, new in zip(self.seen, items, strict=True)])

    def blocked(self) -> tuple[Tensor, Tensor]:
        """What is seen as pairs: rows and items, int64 ``[pairs]`` each."""
        rows = np.repeat(np.arange(len(self)), [len(items) for items in self.seen])
        return torch.from_numpy(rows), torch.from_numpy(np.concatenate([*self.seen, np.empty(0, np.int64)]))

    def events_at(self, place: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Items and event types at places of the history ``[users, n]``, flat; 0 where the place is -1."""
        real = place >= 0
        found = (part.gather(1, place.clamp(min=0)) * real for part in (self.history, self.types))
        items, types = (part.flatten().numpy().astype(np.int32) for part in found)
        return items, types

    def rows(self, section: int, items: Tensor, scores: Tensor) -> pd.DataFrame:
        """A row for each place of the lists ``[users, n]``: user_id, section, rank from 1, item_idx, score."""
        n = items.shape[1]
        return pd.DataFrame(
            {
                "user_id": np.repeat(self.ids, n),
                "section": np.full(len(self) * n, section, dtype=np.int32),
                "rank": np.tile(np.arange(1, n + 1, dtype=np.int32), len(self)),
                "item_idx": items.flatten().numpy().astype(np.int32),
                "score": scores.flatten().numpy().astype(np.float64),
            }
        )
