"""Items that came after a model's training, and what is known of them: their words, and what stood beside them in recent
sequences."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

USERS = 50_000
"""Users who tell what stood beside a newcomer, those who acted last: a hundred of them would do for most items."""

TOLD = 200_000
"""Items that tell what words mean; of a larger catalogue every second, third, … one."""

FIRST = 200
"""Characters of a text that tell what an item is, some thirty words."""

EACH = 50
"""Items that tell what a word means, those that it is most of: more of them change little."""


@dataclass(frozen=True)
class Newcomers:
    """Of the items from ``first`` on, CSR float32 ``[newcomers, items + 1]`` each: what ``followed`` one soon, rows summing
    to one or zero, and what stood ``beside`` it, before or after, each neighbour 1 / gap.

    ``events``: in how many places of sequences each was met, ``[newcomers]``. ``alike``: see there; None where nobody looked.
    """

    first: int
    followed: sparse.csr_matrix
    beside: sparse.csr_matrix
    events: np.ndarray
    alike: sparse.csr_matrix | None = None


def count(
    sequences: DataFrame, items: DataFrame, known: int, n_items: int, words: sparse.csr_matrix | None = None
) -> Newcomers | None:
    """Counted from the users whose ``sequences`` hold items above ``known``, and from what ``items`` say of
    themselves, where their ``words`` (``alike``) are not given; None where the catalogue has no such item."""
    if n_items <= known:
        return None
    theirs = sequences.where(F.exists("item_idx", lambda item: item > known))
    newest = theirs.orderBy(F.desc("last_event_time"), "user_id").limit(USERS)
    met = of_histories([row["item_idx"] for row in newest.select("item_idx").toLocalIterator()], known, n_items)
    return replace(met, alike=of_words(items, known, n_items) if words is None else words)


def of_words(items: DataFrame, known: int, n_items: int) -> sparse.csr_matrix:
    """``alike`` by the titles, categories and texts of ``items``. Beside a title or a category a text is half of what is said,
    however long it is."""
    from headwater.models import transitions
    from headwater.training import describe  # and scikit-learn, which executors never need

    some = items.where((F.col("item_idx") > known) | (F.col("item_idx") % (known // TOLD + 1) == 0))
    words = describe.features(some, ("category", "title"), n_items)
    begin = F.regexp_extract("text", rf"(?sU)^.{{0,{FIRST}}}(?!\w)", 0)  # of whole words
    texts = some.where("text <> ''").select("item_idx", begin.alias("text"))
    told = describe.features(texts, ("text",), n_items)
    assert words is not None, "columns are named"
    assert told is not None, "columns are named"
    return alike(transitions.shares(words + told) if told.nnz else words, known)


def alike(described: sparse.csr_matrix, known: int) -> sparse.csr_matrix:
    """Of each item above ``known`` the items up to it that share its words: CSR float32 ``[newcomers, known + 1]``, rows
    summing to one, or zero where no word of it is known.

    ``described`` ``[items + 1, words]``: what share of an item a word is (``training.describe``). The share of a word goes to
    the ``EACH`` items that it is most of, alike.
    """
    from headwater.models import transitions

    told = described[: known + 1].tocoo()
    order = np.lexsort((told.row, -told.data, told.col))
    item, word = told.row[order], told.col[order]
    begins = np.searchsorted(word, word)
    first = np.arange(len(word)) - begins < EACH
    item, word = item[first], word[first]
    ones = np.ones(len(word), dtype=np.float32)
    means = transitions.shares(sparse.csr_matrix((ones, (word, item)), shape=(described.shape[1], known + 1)))
    return transitions.shares(described[known + 1 :] @ means)


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
