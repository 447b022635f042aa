"""Histories of different lengths as one padded array, the form in which all models and counts read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse


def left_padded(histories: Sequence[Sequence[int] | np.ndarray], length: int | None = None) -> np.ndarray:
    """The last ``length`` events of each history, oldest first, int64 ``[rows, length]``, left-padded with 0.

    Without ``length`` the longest history determines it; it is at least 1.
    """
    width = max(map(len, histories), default=1) or 1 if length is None else length
    return padded_rows(*flat(histories), len(histories), width)


def flat(histories: Sequence[Sequence[int] | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All histories concatenated: the index of each value's history, ascending, and the values, int64."""
    values = [np.empty(0, np.int64), *(np.asarray(history, np.int64) for history in histories)]
    return np.repeat(np.arange(len(histories)), [len(history) for history in histories]), np.concatenate(values)


def padded_rows(row: np.ndarray, values: np.ndarray, n_rows: int, width: int) -> np.ndarray:
    """The last ``width`` values of each row, left-padded with 0, int64 ``[n_rows, width]``. ``row``, ascending, holds the row
    index of each of ``values``."""
    rows = np.zeros((n_rows, width), dtype=np.int64)
    end = np.bincount(row, minlength=n_rows).cumsum()
    column = width + np.arange(len(row)) - end[row]
    kept = column >= 0
    rows[row[kept], column[kept]] = values[kept]
    return rows


def incidence(sequences: np.ndarray, n_items: int) -> sparse.csr_matrix:
    """Which items occur in each row of int sequences ``[rows, seq]``: ones, CSR float32 ``[rows, n_items + 1]``."""
    rows, places = sequences.nonzero()
    cells = (np.ones(len(rows), np.float32), (rows, sequences[rows, places]))
    occurrences = sparse.csr_matrix(cells, shape=(len(sequences), n_items + 1))
    occurrences.data[:] = 1.0
    return occurrences
