"""Item features from the catalogue, as numbers that a model can learn from.

Words and categories are hashed into a table of fixed size (Weinberger et al., Feature Hashing, 2009), so that the features of
tomorrow's items find their rows in today's model.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence

import numpy as np
from pyspark.sql import DataFrame
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from headwater.training import vectors

SEPARATOR = re.compile(r"[|;,/>]")
WORD = re.compile(r"\w+")
BUCKETS = 1 << 14
VECTOR = "vector"
MAX_TEXT_LENGTH = 2_000
"""Only so many characters of a text are used: the first lines describe the item."""


def features(items: DataFrame, names: Sequence[str], n_items: int, vectors_path: str = "") -> sparse.csr_matrix | None:
    """Features of the items up to ``n_items``: CSR float32 ``[n_items + 1, BUCKETS]``, see ``hashed``; None without ``names``.

    ``names``: columns of ``items``, of which ``category`` is split at separators and any other into words; and ``vector``, the
    item vectors in the file ``vectors_path`` (``training.vectors``).
    """
    if not names:
        return None
    columns = [name for name in names if name != VECTOR]
    tokens: list[list[str]] = [[] for _ in range(n_items + 1)]
    for row in items.select("item_idx", *columns).toLocalIterator():
        if row["item_idx"] <= n_items:
            tokens[row["item_idx"]] = [token for name in columns for token in tokens_of(name, row[name])]
    found = hashed(tokens)
    return found + vectors.features(items, vectors_path, n_items, BUCKETS) if VECTOR in names else found


def tokens_of(column: str, value: str | None) -> list[str]:
    """The tokens of one value. Those of categories have a prefix; words of all other columns share their tokens."""
    if not value:
        return []
    if column == "category":
        return [f"category={part.strip().lower()}" for part in SEPARATOR.split(value) if part.strip()]
    words = WORD.findall(value[:MAX_TEXT_LENGTH].lower())
    return list(map(sys.intern, words))  # one copy of a word in memory, not one per item


def hashed(tokens: Iterable[list[str]]) -> sparse.csr_matrix:
    """TF-IDF of each item's tokens, hashed: CSR float32 ``[items, BUCKETS]``; rows sum to 1, or to 0 without tokens."""
    counted = HashingVectorizer(analyzer=list, n_features=BUCKETS, alternate_sign=False, norm=None).transform(tokens)
    return sparse.csr_matrix(TfidfTransformer(norm="l1").fit_transform(counted), dtype=np.float32)
