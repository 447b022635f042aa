"""Histories of different lengths as one array, the shape that every model and every count reads them in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse


def left_padded(histories: Sequence[Sequence[int] | np.ndarray], length: int | None = None) -> np.ndarray:
    """The last ``length`` of each history, oldest first, int64 ``[rows, length]``, with 0 before a shorter one.

    Without ``length`` the longest history sets it; it is 1 at least.
    """
    width = max(map(len, histories), default=1) or 1 if length is None else length
    return placed(*flat(histories), len(histories), width)


def flat(histories: Sequence[Sequence[int] | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All histories one after the other: to which each value belongs, ascending, and the values, int64."""
    values = [np.empty(0, np.int64), *(np.asarray(history, np.int64) for history in histories)]
    return np.repeat(np.arange(len(histories)), [len(history) for history in histories]), np.concatenate(values)


def placed(row: np.ndarray, values: np.ndarray, n_rows: int, width: int) -> np.ndarray:
    """The last ``width`` values of each row at its end, int64 ``[n_rows, width]``, with 0 before fewer. ``row``: to which row
    each of ``values`` belongs, ascending."""
    rows = np.zeros((n_rows, width), dtype=np.int64)
    end = np.bincount(row, minlength=n_rows).cumsum()
    column = width + np.arange(len(row)) - end[row]
    kept = column >= 0
    rows[row[kept], column[kept]] = values[kept]
    return rows


def incidence(sequences: np.ndarray, n_items: int) -> sparse.csr_matrix:
    """Which items each row of int sequences ``[rows, seq]`` has, however often: ones, CSR float32 ``[rows, n_items + 1]``."""
    rows, places = sequences.nonzero()
    cells = (np.ones(len(rows), np.float32), (rows, sequences[rows, places]))
    had = sparse.csr_matrix(cells, shape=(len(sequences), n_items + 1))
    had.data[:] = 1.0
    return had
