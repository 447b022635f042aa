"""Lists on Spark executors: the one place beside the training export where Spark and torch meet.

The model travels as a file, an archive that Spark unpacks once on each executor, and is opened there from tensors with
checked digests; nothing is pickled into the closure but the archive's name and a few numbers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
from pyspark import SparkFiles
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from headwater.schemas import EVENT_TYPES

LISTS = "user_id string, rank int, item_idx int, score double, strategy string, because_idx int, because_type int"


@dataclass(frozen=True)
class Rules:
    """What may stand in a list, and how much is scored at once."""

    n: int
    exclude_seen: bool
    batch_users: int


def ship(spark: SparkSession, model: Path, available: np.ndarray, popular: np.ndarray, scratch: Path) -> str:
    """Send a model directory and the catalogue's state to the executors; returns the name to open it by there.

    ``available`` (bool) and ``popular`` (float, decayed counts) are ``[max item_idx + 1]``. ``scratch`` must live as
    long as the session.
    """
    name = f"headwater-{uuid4().hex}"
    bundle = scratch / name
    shutil.copytree(model, bundle / "model")
    np.savez(bundle / "catalog.npz", available=available, popular=popular)
    archive = shutil.make_archive(str(bundle), "zip", bundle)
    shutil.rmtree(bundle)
    spark.sparkContext.addArchive(f"{archive}#{name}")
    return name


def recommend(sequences: DataFrame, bundle: str, rules: Rules) -> DataFrame:
    """A list for every row of ``sequences`` (user_id, item_idx, event_type, seen_items): the columns of ``LISTS``.

    Ranks run from 1 without gaps; a list is shorter than ``n`` only where nothing else may be shown.
    """

    def score(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        scorer = _open(bundle)
        for frame in frames:
            for start in range(0, len(frame), rules.batch_users):
                yield scorer.lists(frame.iloc[start : start + rules.batch_users], rules)

    wanted = sequences.select("user_id", "item_idx", "event_type", "seen_items")
    return wanted.mapInPandas(score, LISTS)


@lru_cache(maxsize=1)
def _open(bundle: str) -> Scorer:
    folder = Path(SparkFiles.get(bundle))
    with np.load(folder / "catalog.npz") as catalog:
        return Scorer(folder / "model", catalog["available"], catalog["popular"])


class Scorer:
    """A model opened for scoring, with the catalogue's state beside it."""

    def __init__(self, model: Path, available: np.ndarray, popular: np.ndarray) -> None:
        import torch

        from headwater.models.ranker import Ranker
        from headwater.scoring.candidates import Candidates

        torch.set_num_threads(1)  # Spark runs a worker per core
        self.ranker = Ranker.open(model).with_recency(popular)
        allowed = torch.zeros(self.ranker.n_items + 1, dtype=torch.bool)
        known = min(len(available), len(allowed))
        allowed[:known] = torch.from_numpy(available[:known])
        self.candidates = Candidates(self.ranker, allowed)
        order = np.argsort(-popular, kind="stable")
        self.popular = order[available[order]]

    def lists(self, users: pd.DataFrame, rules: Rules) -> pd.DataFrame:
        """The lists of some users: a frame with the columns of ``LISTS``."""
        import torch

        from headwater.scoring.reasons import closest_events

        types = [[EVENT_TYPES.index(name) + 1 for name in names] for names in users["event_type"]]
        history, kinds = self.ranker.pad(users["item_idx"], types)
        seen = [
            np.asarray(items, dtype=np.int64) if rules.exclude_seen else np.empty(0, np.int64)
            for items in users["seen_items"]
        ]
        rows = np.repeat(np.arange(len(seen)), [len(items) for items in seen])
        blocked = np.concatenate(seen) if seen else np.empty(0, np.int64)
        with torch.inference_mode():
            pairs = torch.from_numpy(rows), torch.from_numpy(blocked)
            scores, items = self.candidates.best(history, kinds, pairs, rules.n)
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
