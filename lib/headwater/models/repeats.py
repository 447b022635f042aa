"""Repeats: each item is its own neighbour, so that items which a user had before may be recommended again.

Where people buy the same goods again, this is the strongest evidence; with ``topn.exclude_seen`` it has no effect. When an item
is due again is estimated elsewhere (``scoring.repeats``).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from headwater.models.neighbours import Neighbours

WHOLE_HISTORY = np.iinfo(np.int32).max
HALF_LIFE = 180.0
"""Days after which an event counts half."""


def of(n_items: int, window: int = WHOLE_HISTORY) -> Neighbours:
    """For a catalogue of ``n_items``; the last ``window`` events of a history count, the older the less."""
    items = np.arange(1, n_items + 1)
    matrix = sparse.csr_matrix((np.ones(n_items, np.float32), (items, items)), shape=(n_items + 1, n_items + 1))
    return Neighbours(matrix, window, decay=1.0, most=np.inf, half_life=HALF_LIFE)
