"""Items that came after a model's training, and what is known of them: what stood beside them in recent sequences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

USERS = 50_000
"""Users who tell what stood beside a newcomer, those who acted last: a hundred of them would do for most items."""


@dataclass(frozen=True)
class Newcomers:
    """Of the items from ``first`` on, CSR float32 ``[newcomers, items + 1]`` each: what ``followed`` one soon, rows summing
    to one or zero, and what stood ``beside`` it, before or after, each neighbour 1 / gap.

    ``events``: in how many places of sequences each was met, ``[newcomers]``.
    """

    first: int
    followed: sparse.csr_matrix
    beside: sparse.csr_matrix
    events: np.ndarray


def count(sequences: DataFrame, known: int, n_items: int) -> Newcomers | None:
    """Counted from the users whose ``sequences`` hold items above ``known``; None where the catalogue has no such item."""
    if n_items <= known:
        return None
    theirs = sequences.where(F.exists("item_idx", lambda item: item > known))
    newest = theirs.orderBy(F.desc("last_event_time"), "user_id").limit(USERS)
    return of_histories([row["item_idx"] for row in newest.select("item_idx").toLocalIterator()], known, n_items)


def of_histories(histories: list[list[int]], known: int, n_items: int) -> Newcomers:
    """The same from lists of items, oldest first."""
    from headwater.models import transitions
    from headwater.models.histories import left_padded

    padded = left_padded(histories)
    padded[padded > n_items] = 0
    followed = transitions.gaps(padded, n_items)
    met = np.bincount(padded.ravel(), minlength=n_items + 1)[known + 1 :]
    return Newcomers(
        first=known + 1,
        followed=transitions.shares(followed)[known + 1 :],
        beside=(followed + followed.T).tocsr()[known + 1 :],
        events=met,
    )
