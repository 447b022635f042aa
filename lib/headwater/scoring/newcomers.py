"""Newcomers, the items that a model was not trained on, and the evidence about them: their words and their neighbours in
recent sequences. They came after the training, or had no event in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from scipy import sparse

MAX_USERS = 50_000
"""Users whose sequences are read for the neighbours of newcomers, the most recently active ones; for most items a hundred
would be enough."""

DESCRIBED_ITEMS = 200_000
"""The meaning of words is learned from about this many items; from a larger catalogue every second, third, … one."""

TEXT_CHARACTERS = 200
"""Characters of a text that are read, about thirty words."""

MAX_SOUGHT = 10_000
"""Newcomers of the model's own catalogue whose neighbours are sought, those with the most recent events."""

ITEMS_PER_WORD = 50
"""Items that define the meaning of a word, those with the largest share of it; more of them change little."""


@dataclass(frozen=True)
class Newcomers:
    """For some ``items``, int64 and ascending, CSR float32 ``[newcomers, items + 1]`` each: the items that ``followed`` one
    soon, rows summing to one or zero, and its ``neighbours``, before or after, each 1 / gap.

    ``events`` ``[newcomers]``: the occurrences of each in sequences. ``alike``: the result of the function ``alike``, None if
    it was not computed.
    """

    items: np.ndarray
    followed: sparse.csr_matrix
    neighbours: sparse.csr_matrix
    events: np.ndarray
    alike: sparse.csr_matrix | None = None

    def places(self, items: np.ndarray) -> np.ndarray:
        """The positions of ``items`` (int64, of any shape) among those of the evidence; -1 for others."""
        place = np.searchsorted(self.items, items).clip(max=len(self.items) - 1)
        return np.where(self.items[place] == items, place, -1)


def newcomers_of(trained: np.ndarray, last: int) -> np.ndarray:
    """The items up to index ``last`` that are not ``trained`` (bool ``[known items + 1]``, padding is), int64, ascending."""
    return np.concatenate([np.flatnonzero(~trained[: last + 1]), np.arange(len(trained), last + 1)])


def count(
    sequences: DataFrame,
    items: DataFrame,
    trained: np.ndarray,
    popular: np.ndarray,
    words: sparse.csr_matrix | None = None,
) -> Newcomers | None:
    """Evidence about the items that are not ``trained`` (``newcomers_of``), from the ``sequences`` of users who have any of them
    and from the words of ``items``, unless these are given as ``words`` (the result of ``alike``). None if there is no such item.

    ``popular``: the number of recent events of each item, ``[items + 1]``.
    """
    n_items = len(popular) - 1
    new = newcomers_of(trained, n_items)
    if not len(new):
        return None
    theirs = sequences.where(_has_any(new[new < len(trained)], popular, len(trained)))
    newest = theirs.orderBy(F.desc("last_event_time"), "user_id").limit(MAX_USERS)
    met = of_histories([row["item_idx"] for row in newest.select("item_idx").toLocalIterator()], new, n_items)
    return replace(met, alike=of_words(items, trained, n_items) if words is None else words)


def _has_any(untrained: np.ndarray, popular: np.ndarray, beyond: int) -> Column:
    """Whether a sequence has an item from index ``beyond`` on, or one of the ``untrained`` items."""
    later = F.exists("item_idx", lambda item: item >= beyond)
    sought = untrained[popular[untrained] > 0]
    sought = sought[np.argsort(-popular[sought], kind="stable")[:MAX_SOUGHT]]
    if not len(sought):
        return later
    return later | F.expr(f"exists(item_idx, item -> item IN ({', '.join(map(str, sought))}))")


def of_words(items: DataFrame, trained: np.ndarray, n_items: int) -> sparse.csr_matrix:
    """``alike`` for the titles, categories and texts of ``items``. If an item has both a text and a title or category, the
    text has half of the weight, whatever its length."""
    from headwater.models import transitions
    from headwater.training import describe  # imports scikit-learn, which executors never need

    every = len(trained) // DESCRIBED_ITEMS + 1
    some = items
    if every > 1:
        new = pd.DataFrame({"item_idx": newcomers_of(trained, n_items).astype(np.int32), "new": True})
        marked = items.join(F.broadcast(items.sparkSession.createDataFrame(new)), "item_idx", how="left")
        some = marked.where(F.col("new") | (F.col("item_idx") % every == 0))
    words = describe.features(some, ("category", "title"), n_items)
    begin = F.regexp_extract("text", rf"(?sU)^.{{0,{TEXT_CHARACTERS}}}(?!\w)", 0)  # whole words only
    texts = some.where("text <> ''").select("item_idx", begin.alias("text"))
    text_words = describe.features(texts, ("text",), n_items)
    assert words is not None, "columns are named"
    assert text_words is not None, "a column is named"
    return alike(transitions.shares(words + text_words) if text_words.nnz else words, trained)


def alike(described: sparse.csr_matrix, trained: np.ndarray) -> sparse.csr_matrix:
    """For each newcomer (``newcomers_of``), the ``trained`` items that share its words: CSR float32 ``[newcomers, known + 1]``,
    rows summing to one, or to zero if no trained item has any of its words.

    ``described`` ``[items + 1, words]``: the share of each word in an item (``training.describe``). A word's share is divided
    equally among the ``ITEMS_PER_WORD`` trained items that have most of it.
    """
    from headwater.models import transitions

    known = len(trained) - 1
    known_words = (sparse.diags(trained.astype(np.float32)) @ described[: known + 1]).tocoo()
    order = np.lexsort((known_words.row, -known_words.data, known_words.col))
    item, word = known_words.row[order], known_words.col[order]
    begins = np.searchsorted(word, word)
    first = np.arange(len(word)) - begins < ITEMS_PER_WORD
    item, word = item[first], word[first]
    ones = np.ones(len(word), dtype=np.float32)
    means = transitions.shares(sparse.csr_matrix((ones, (word, item)), shape=(described.shape[1], known + 1)))
    return transitions.shares(described[newcomers_of(trained, described.shape[0] - 1)] @ means)


def of_histories(histories: list[list[int]], new: np.ndarray, n_items: int) -> Newcomers:
    """The ``new`` items, int64 and ascending, counted in lists of items, oldest first; ``alike`` is not set."""
    from headwater.models import transitions
    from headwater.models.histories import left_padded

    padded = left_padded(histories)
    padded[padded > n_items] = 0
    followed = transitions.inverse_gaps(padded, n_items)
    return Newcomers(
        items=new,
        followed=transitions.shares(followed)[new],
        neighbours=(followed + followed.T).tocsr()[new],
        events=np.bincount(padded.ravel(), minlength=n_items + 1)[new],
    )
