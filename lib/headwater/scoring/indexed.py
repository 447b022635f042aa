"""The index of one scoring run: whether it pays, made on the driver, and measured beside exact lists."""

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
"""Users whose lists are made both ways."""
PAYS = 20.0
"""An index pays for this many users times √items: making one of a million items costs as much as 12,000 exact lists, and a
list found by it a quarter of one (``benchmarks/index.py``)."""


METRIC = "index_recall"
"""Its name in ``model_metrics``."""


def pays(users: int, items: int) -> bool:
    """Whether finding lists of so many users among so many items by an index saves more than making it costs."""
    return items > 0 and users > PAYS * items**0.5


def make(ranker: Ranker, catalogue: Catalogue, topn: Topn, path: Path, users: pd.DataFrame) -> float:
    """Write the index that a ``Scorer`` of these takes to ``path``; returns its recall on some users (``Scorer.lists``)."""
    alone = topn.model_copy(update={"sections": ()})
    exact = Scorer(ranker, catalogue, alone)
    among = exact.candidates.among
    assert isinstance(among, ExactIndex), "a scorer without an index has the whole matrix"
    index.write(among.matrix.cpu(), path)
    return recall(exact.lists(users), Scorer(ranker, catalogue, alone, path).lists(users))


def recall(exact: pd.DataFrame, found: pd.DataFrame) -> float:
    """Which share of the places of exact lists go to an item that the same user's other list holds too; 1 without any."""
    shared = exact.merge(found, on=["user_id", "item_idx"], how="inner")
    return len(shared) / len(exact) if len(exact) else 1.0
