"""What comes back: each item goes with itself, so that lists may hold again what a user had before.

Where people buy the same goods again nothing tells more; where ``topn.exclude_seen`` keeps out what they had it tells
nothing. When an item is due again is another question (``scoring.repeats``).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from headwater.models.neighbours import Neighbours


def fit(sequences: np.ndarray, n_items: int) -> Neighbours:
    """Of int sequences ``[rows, seq]`` only their length counts: each time says the same, however long ago."""
    return of(n_items, window=sequences.shape[1])


def of(n_items: int, window: int) -> Neighbours:
    """For a catalogue of ``n_items``, of whose histories the last ``window`` events count."""
    items = np.arange(1, n_items + 1)
    matrix = sparse.csr_matrix((np.ones(n_items, np.float32), (items, items)), shape=(n_items + 1, n_items + 1))
    return Neighbours(matrix, window, decay=1.0, most=np.inf)
