"""Histories of different lengths as one array, the shape that every model and every count reads them in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def left_padded(histories: Sequence[Sequence[int] | np.ndarray], length: int | None = None) -> np.ndarray:
    """The last ``length`` of each history, oldest first, int64 ``[rows, length]``, with 0 before a shorter one.

    Without ``length`` the longest history sets it; it is 1 at least.
    """
    width = max(map(len, histories), default=1) or 1 if length is None else length
    rows = np.zeros((len(histories), width), dtype=np.int64)
    for row, history in zip(rows, histories, strict=True):
        if len(history):
            last = history[-width:]
            row[-len(last) :] = last
    return rows
