"""Newcomers, items newer than a model, and the evidence about them: their words and their neighbours in recent sequences."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

MAX_USERS = 50_000
"""Users whose sequences are read for the neighbours of newcomers, the most recently active ones; for most items a hundred
would be enough."""

DESCRIBED_ITEMS = 200_000
"""The meaning of words is learned from about this many items; from a larger catalogue every second, third, … one."""

TEXT_CHARACTERS = 200
"""Characters of a text that are read, about thirty words."""

ITEMS_PER_WORD = 50
"""Items that define the meaning of a word, those with the largest share of it; more of them change little."""


@dataclass(frozen=True)
class Newcomers:
    """For the items from ``first`` on, CSR float32 ``[newcomers, items + 1]`` each: the items that ``followed`` one soon,
    rows summing to one or zero, and its ``neighbours``, before or after, each 1 / gap.

    ``events`` ``[newcomers]``: the occurrences of each in sequences. ``alike``: the result of the function ``alike``, None if
    it was not computed.
    """

    first: int
    followed: sparse.csr_matrix
    neighbours: sparse.csr_matrix
    events: np.ndarray
    alike: sparse.csr_matrix | None = None


def count(
    sequences: DataFrame, items: DataFrame, known: int, n_items: int, words: sparse.csr_matrix | None = None
) -> Newcomers | None:
    """Evidence about the items above ``known``, from the ``sequences`` of users who have any of them and from the words of
    ``items``, unless these are given as ``words`` (the result of ``alike``). None if the catalogue has no such item."""
    if n_items <= known:
        return None
    theirs = sequences.where(F.exists("item_idx", lambda item: item > known))
    newest = theirs.orderBy(F.desc("last_event_time"), "user_id").limit(MAX_USERS)
    met = of_histories([row["item_idx"] for row in newest.select("item_idx").toLocalIterator()], known, n_items)
    return replace(met, alike=of_words(items, known, n_items) if words is None else words)


def of_words(items: DataFrame, known: int, n_items: int) -> sparse.csr_matrix:
    """``alike`` for the titles, categories and texts of ``items``. If an item has both a text and a title or category, the
    text has half of the weight, whatever its length."""
    from headwater.models import transitions
    from headwater.training import describe  # imports scikit-learn, which executors never need

    some = items.where((F.col("item_idx") > known) | (F.col("item_idx") % (known // DESCRIBED_ITEMS + 1) == 0))
    words = describe.features(some, ("category", "title"), n_items)
    begin = F.regexp_extract("text", rf"(?sU)^.{{0,{TEXT_CHARACTERS}}}(?!\w)", 0)  # whole words only
    texts = some.where("text <> ''").select("item_idx", begin.alias("text"))
    text_words = describe.features(texts, ("text",), n_items)
    assert words is not None, "columns are named"
    assert text_words is not None, "a column is named"
    return alike(transitions.shares(words + text_words) if text_words.nnz else words, known)


def alike(described: sparse.csr_matrix, known: int) -> sparse.csr_matrix:
    """For each item above ``known``, the known items that share its words: CSR float32 ``[newcomers, known + 1]``, rows
    summing to one, or to zero if no known item has any of its words.

    ``described`` ``[items + 1, words]``: the share of each word in an item (``training.describe``). A word's share is divided
    equally among the ``ITEMS_PER_WORD`` known items that have most of it.
    """
    from headwater.models import transitions

    known_words = described[: known + 1].tocoo()
    order = np.lexsort((known_words.row, -known_words.data, known_words.col))
    item, word = known_words.row[order], known_words.col[order]
    begins = np.searchsorted(word, word)
    first = np.arange(len(word)) - begins < ITEMS_PER_WORD
    item, word = item[first], word[first]
    ones = np.ones(len(word), dtype=np.float32)
    means = transitions.shares(sparse.csr_matrix((ones, (word, item)), shape=(described.shape[1], known + 1)))
    return transitions.shares(described[known + 1 :] @ means)


def of_histories(histories: list[list[int]], known: int, n_items: int) -> Newcomers:
    """Newcomers counted from lists of items, oldest first; ``alike`` is not set."""
    from headwater.models import transitions
    from headwater.models.histories import left_padded

    padded = left_padded(histories)
    padded[padded > n_items] = 0
    followed = transitions.inverse_gaps(padded, n_items)
    met = np.bincount(padded.ravel(), minlength=n_items + 1)[known + 1 :]
    return Newcomers(
        first=known + 1,
        followed=transitions.shares(followed)[known + 1 :],
        neighbours=(followed + followed.T).tocsr()[known + 1 :],
        events=met,
    )
