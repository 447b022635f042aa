"""Lists on Spark executors: the one place beside the training export where Spark and torch meet.

The model travels as a file, an archive that Spark unpacks once on each executor, and is opened there from tensors with
checked digests. The catalogue's state, which changes more often than the model, travels beside it as a broadcast: what
is popular, and what may be shown.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import pandas as pd
from pyspark import Broadcast, SparkFiles
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from headwater.schemas import EVENT_TYPES

if TYPE_CHECKING:
    from headwater.models.ranker import Ranker

LISTS = "user_id string, rank int, item_idx int, score double, strategy string, because_idx int, because_type int"


@dataclass(frozen=True)
class Rules:
    """What may stand in a list, and how much is scored at once."""

    n: int
    exclude_seen: bool
    batch_users: int
    tile_items: int


@dataclass(frozen=True)
class Shipped:
    """What executors need: the name of a model's archive, and the catalogue's state.

    ``catalogue`` holds ``available`` (bool) and ``popular`` (float, decayed counts), both ``[max item_idx + 1]``.
    """

    model: str
    catalogue: Broadcast[tuple[np.ndarray, np.ndarray]]


def ship(spark: SparkSession, model: Path, scratch: Path) -> str:
    """Send a model directory to the executors; returns the name to open it by there.

    ``scratch`` must live as long as the session: an executor that starts later asks for every archive.
    """
    name = f"headwater-{uuid4().hex}"
    bundle = scratch / name
    shutil.copytree(model, bundle / "model")
    archive = shutil.make_archive(str(bundle), "zip", bundle)
    shutil.rmtree(bundle)
    spark.sparkContext.addArchive(f"{archive}#{name}")
    return name


def recommend(sequences: DataFrame, shipped: Shipped, rules: Rules) -> DataFrame:
    """A list for every row of ``sequences`` (user_id, item_idx, event_type, seen_items): the columns of ``LISTS``.

    Ranks run from 1 without gaps; a list is shorter than ``n`` only where nothing else may be shown.
    """

    def score(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        scorer = Scorer(_open(shipped.model), *shipped.catalogue.value)
        for frame in frames:
            for start in range(0, len(frame), rules.batch_users):
                yield scorer.lists(frame.iloc[start : start + rules.batch_users], rules)

    wanted = sequences.select("user_id", "item_idx", "event_type", "seen_items")
    return wanted.mapInPandas(score, LISTS)


@lru_cache(maxsize=1)
def _open(name: str) -> Ranker:
    from headwater.models.ranker import Ranker

    return Ranker.open(Path(SparkFiles.get(name)) / "model")


class Scorer:
    """A model opened for scoring, with the catalogue's state beside it."""

    def __init__(self, ranker: Ranker, available: np.ndarray, popular: np.ndarray) -> None:
        import torch

        torch.set_num_threads(1)  # Spark runs a worker per core
        self.ranker = ranker.with_recency(popular)
        self.allowed = torch.zeros(self.ranker.n_items + 1, dtype=torch.bool)
        known = min(len(available), len(self.allowed))
        self.allowed[:known] = torch.from_numpy(available[:known])
        self.allowed[0] = False
        order = np.argsort(-popular, kind="stable")
        self.popular = order[available[order]]

    def lists(self, users: pd.DataFrame, rules: Rules) -> pd.DataFrame:
        """The lists of some users: a frame with the columns of ``LISTS``."""
        import torch

        from headwater.scoring.kernel import top_n
        from headwater.scoring.reasons import closest_events

        types = [[EVENT_TYPES.index(name) + 1 for name in names] for names in users["event_type"]]
        history, kinds = self.ranker.pad(users["item_idx"], types)
        seen = [
            np.asarray(items, dtype=np.int64) if rules.exclude_seen else np.empty(0, np.int64)
            for items in users["seen_items"]
        ]
        rows = np.repeat(np.arange(len(seen)), [len(items) for items in seen])
        blocked = np.concatenate(seen) if seen else np.empty(0, np.int64)
        known = blocked <= self.ranker.n_items
        with torch.inference_mode():
            scores, items = top_n(
                self.ranker.tile_scores(history, kinds),
                self.allowed,
                torch.from_numpy(rows[known]),
                torch.from_numpy(blocked[known]),
                rules.n,
                rules.tile_items,
            )
            place = closest_events(items, history, self.ranker.item_vectors)
        cold = (history[:, -1] == 0).unsqueeze(1)  # nothing in the history that the model knows
        ranked = items.masked_fill(cold, 0).numpy()
        personal = ranked > 0
        strategy = np.where(personal, self.ranker.name, "recent_popular")
        because = np.where(personal, history.gather(1, place).numpy(), 0)
        because_type = np.where(personal, kinds.gather(1, place).numpy(), 0)
        listed, filled = self._fill(ranked, np.where(personal, scores.numpy(), -np.inf), seen)
        frame = pd.DataFrame(
            {
                "user_id": np.repeat(users["user_id"].to_numpy(), rules.n),
                "rank": np.tile(np.arange(1, rules.n + 1, dtype=np.int32), len(users)),
                "item_idx": listed.ravel().astype(np.int32),
                "score": filled.ravel().astype(np.float64),
                "strategy": strategy.ravel(),
                "because_idx": because.ravel().astype(np.int32),
                "because_type": because_type.ravel().astype(np.int32),
            }
        )
        return frame[frame["item_idx"] > 0]

    def _fill(self, listed: np.ndarray, scores: np.ndarray, seen: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Fill the gaps at the end of lists with what is popular and neither seen nor listed.

        Filled rows score one less than the row above, so that a list's scores never rise.
        """
        listed, scores = listed.copy(), scores.copy()
        for row in np.flatnonzero((listed == 0).any(axis=1)):
            have = int((listed[row] > 0).sum())
            taken = set(listed[row].tolist()) | set(seen[row].tolist())
            floor = scores[row, have - 1] if have else 0.0
            for item in self.popular:
                if have == listed.shape[1]:
                    break
                if int(item) not in taken:
                    floor -= 1.0
                    listed[row, have], scores[row, have] = item, floor
                    have += 1
        return listed, scores


def with_titles(lists: DataFrame, items: DataFrame) -> DataFrame:
    """Adds item_id and because_title (the title, or the identifier where the catalogue has none)."""
    names = items.select("item_idx", "item_id", F.coalesce("title", "item_id").alias("name"))
    because = names.select(F.col("item_idx").alias("because_idx"), F.col("name").alias("because_title"))
    return lists.join(names.select("item_idx", "item_id"), "item_idx", how="inner").join(
        F.broadcast(because), "because_idx", how="left"
    )
