"""The index of one scoring run: whether it pays off, its construction on the driver, and its recall against exact lists."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from headwater.config import Topn
from headwater.models.ranker import Ranker
from headwater.scoring import index
from headwater.scoring.candidates import ExactIndex
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.scorer import Scorer

SAMPLE = 256
"""The number of users whose lists are made with and without the index."""
PAYS_ABOVE = 20.0
"""An index pays off above this many users times √items: building one of a million items costs as much as 12,000 exact lists,
and a list made with it a quarter of an exact one (``benchmarks/index.py``)."""


METRIC = "index_recall"
"""The name of the recall in ``model_metrics``."""


def pays_off(users: int, items: int) -> bool:
    """Whether an index for so many users and items saves more than it costs to build."""
    return items > 0 and users > PAYS_ABOVE * items**0.5


def make(
    ranker: Ranker, catalogue: Catalogue, topn: Topn, path: Path, users: pd.DataFrame, max_length: int | None = None
) -> float:
    """Write the index for a ``Scorer`` with the same ranker, catalogue and rules to ``path``; returns its recall on some
    ``users`` (rows as ``Scorer.lists`` reads them)."""
    topn_only = topn.model_copy(update={"sections": ()})
    exact = Scorer(ranker, catalogue, topn_only, max_length=max_length)
    matrix_index = exact.candidates.index
    assert isinstance(matrix_index, ExactIndex), "a scorer without an index has the whole matrix"
    index.write(matrix_index.matrix.cpu(), path)
    return recall(exact.lists(users), Scorer(ranker, catalogue, topn_only, path, max_length).lists(users))


def recall(exact: pd.DataFrame, found: pd.DataFrame) -> float:
    """The share of places in exact lists whose item is also in the same user's list with the index; 1 if there are no places."""
    shared = exact.merge(found, on=["user_id", "item_idx"], how="inner")
    return len(shared) / len(exact) if len(exact) else 1.0
