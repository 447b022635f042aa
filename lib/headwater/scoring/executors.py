"""Scoring on Spark executors.

The model is sent as an archive, which Spark unpacks once on each executor, and is opened there from tensors with checked
digests. The catalogue's state, which changes more often than the model, is broadcast separately.
"""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4
from zipimport import zipimporter

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark import Broadcast, SparkFiles
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from headwater.config import Topn
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.places import PLACES
from headwater.training import artifact

if TYPE_CHECKING:
    from headwater.models.ranker import Ranker
    from headwater.scoring.scorer import Scorer

ARROW = {"int": pa.int32(), "double": pa.float64(), "string": pa.string()}
"""The Arrow types of the columns in ``PLACES``."""
LISTS = "user_id string, history_time timestamp, section int, " + ", ".join(
    f"{name} array<{kind}>" for name, kind in PLACES.items()
)
"""The schema of lists: a row per list, with its places in arrays. That is a tenth of the rows, and checking a list needs no
shuffle. Section 0 is the Top-N; ``history_time`` is the time of the last event that the list reflects."""


@dataclass(frozen=True)
class Shipped:
    """What executors need: the name of the model's archive, the catalogue's state and its number of items, the maximum number
    of events in a sequence, and the name of the index file, if there is one."""

    model: str
    catalogue: Broadcast[Catalogue]
    n_items: int
    max_length: int
    index: str | None = None


def ship(spark: SparkSession, model: Path, scratch: Path) -> str:
    """Send a model directory to the executors; returns the name by which they open it.

    ``scratch`` must live as long as the session: an executor that starts later fetches every archive.
    """
    name = f"headwater-{uuid4().hex}"
    archive = scratch / f"{name}.tar"
    with tarfile.open(archive, "w") as bundle:  # uncompressed: compression takes seconds and hardly shrinks tensors
        bundle.add(model, "model")
    spark.sparkContext.addArchive(f"{archive}#{name}")
    return name


def recommend(sequences: DataFrame, shipped: Shipped, topn: Topn) -> DataFrame:
    """The lists of every user in ``sequences``, best places first: the columns of ``LISTS``.

    A Top-N is shorter than ``n`` only if no other item may be shown.
    """

    rules = topn.model_dump_json(exclude_unset=True)  # groups inherit the keys that they do not set

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        scorer = _scorer(shipped, rules)
        for batch in batches:
            for start in range(0, len(batch), topn.batch_users):
                users = batch.slice(start, topn.batch_users)
                places = scorer.lists(users.to_pandas())
                yield as_lists(places, users["user_id"], users["history_time"])
        _forget_archives()

    known = F.col("last_event_time").alias("history_time")
    return histories(sequences, known).mapInArrow(score, LISTS)


def histories(sequences: DataFrame, *further: Column) -> DataFrame:
    """The columns of ``sequences`` that the scorer reads, and ``further`` ones; ``at`` is ``event_time`` in epoch seconds."""
    seconds = F.col("event_time").cast("array<double>").alias("at")
    return sequences.select("user_id", "item_idx", "event_type", seconds, "value", "seen_items", *further)


def history_of(sequences: DataFrame, user: str) -> pd.DataFrame:
    """One user's row in the form that the scorer reads; empty if there is none."""
    return histories(sequences.where(F.col("user_id") == user)).toPandas()


def as_lists(places: pd.DataFrame, users: pa.Array, history_time: pa.Array) -> pa.RecordBatch:
    """Places (``Scorer.lists``) grouped into rows of ``LISTS``, with the ``history_time`` of each of the ``users``."""
    who, section = places["user_id"].to_numpy(), places["section"].to_numpy()
    first = np.ones(len(places), dtype=bool)
    first[1:] = (who[1:] != who[:-1]) | (section[1:] != section[:-1])
    start = np.flatnonzero(first)
    place = {user: row for row, user in enumerate(users.to_pylist())}
    user = pa.array([place[user] for user in who[start]], pa.int64())
    ends = pa.array(np.append(start, len(places)), pa.int32())
    columns = {
        "user_id": users.take(user),
        "history_time": history_time.take(user),
        "section": pa.array(section[start], pa.int32()),
    }
    for name, kind in PLACES.items():
        columns[name] = pa.ListArray.from_arrays(ends, pa.array(places[name], ARROW[kind], from_pandas=True))
    return pa.RecordBatch.from_pydict(columns)


def places(lists: DataFrame) -> DataFrame:
    """A row for each place of ``lists``: the lists' own columns, then those of ``PLACES``."""
    own = [column for column in lists.columns if column not in PLACES]
    each = lists.select(*own, *PLACES, F.posexplode("rank").alias("place", "_"))
    return each.select(*own, *(F.get(name, F.col("place")).alias(name) for name in PLACES))


def _forget_archives() -> None:
    """Drop a worker's import finders for archives, so that its next task does not read the names of all of Spark's classes
    again, which takes a twentieth of a second.

    Spark puts a jar and two archives on a worker's path and invalidates Python's import caches before each task; Python 3.11
    then rereads the directory of every archive that was ever searched. An archive without a finder is not reread, and later
    imports create the finder again.
    """
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimporter):
            del sys.path_importer_cache[path]


@lru_cache(maxsize=1)
def _scorer(shipped: Shipped, rules: str) -> Scorer:
    """The scorer for a model and a state of the catalogue, kept by a worker from task to task and from round to round.

    ``rules``: the ``topn`` of the config as JSON.
    """
    import torch

    from headwater.scoring.scorer import Scorer

    torch.set_num_threads(1)  # Spark runs a worker per core
    index = None if shipped.index is None else Path(SparkFiles.get(shipped.index))
    topn = Topn.model_validate_json(rules)
    return Scorer(_open(shipped.model), shipped.catalogue.value, topn, index, shipped.max_length)


@lru_cache(maxsize=1)
def _open(name: str) -> Ranker:
    return artifact.ranker(Path(SparkFiles.get(name)) / "model")
