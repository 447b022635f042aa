"""The training snapshot: immutable Parquet of fixed-length rows and a manifest, from one version of the tables.

``sequences`` holds what a model reads to rank: the last events of each user. Training has more to learn from, whole histories,
which ``windows`` cuts into pieces of that length.

A live Delta table is not a suitable training input (its folder also holds files of other versions), so a snapshot is written
once: left-padded arrays of numbers, no nulls, no user identifiers, the same number of rows in every file, so that ranks which
take ``files[rank::world]`` always have equally many steps.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from headwater.config import Train
from headwater.errors import TableError
from headwater.models.spec import ModelSpec
from headwater.schemas import EVENT_TYPES

ROWS_PER_FILE = 65_536
KEY = ("user_id", "piece")
READ_COLUMNS = ("item_idx", "event_type", "event_time", "event_id", "value")
SCHEMA = {
    "item": "array<int>",
    "type": "array<int>",
    "at": "array<bigint>",
    "value": "array<double>",
    "weight": "array<float>",
}


@dataclass(frozen=True)
class Snapshot:
    """A finished snapshot: its folder and its manifest."""

    directory: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, directory: Path) -> Snapshot:
        """Open a snapshot and check every file's digest; raises TableError naming the file that is missing or changed."""
        try:
            manifest = json.loads((directory / "manifest.json").read_text())
        except (OSError, ValueError):
            raise TableError(
                f"training snapshot {directory} has no readable manifest.json; delete the folder"
            ) from None
        for entry in manifest["files"]:
            path = directory / entry["path"]
            if not path.exists() or digest(path) != entry["sha256"]:
                raise TableError(f"training snapshot file {path} is missing or damaged; delete {directory}")
        return cls(directory, manifest)

    @property
    def files(self) -> list[str]:
        return [str((self.directory / entry["path"]).resolve()) for entry in self.manifest["files"]]


def windows(steps: DataFrame, max_length: int, count: int) -> DataFrame:
    """Each user's ``steps`` (``sequences.filter_steps``), cut from the newest backwards into at most ``count`` pieces: the
    columns of ``sequences`` that ``training_rows`` reads, and ``piece``, 0 for the newest.

    A piece has ``max_length`` steps and the one before them, so each step except a user's first follows its predecessor in
    exactly one piece. No array longer than a piece is ever collected, however long a history is.
    """
    newest_first = Window.partitionBy("user_id").orderBy(F.desc("event_time"), F.desc("event_id"))
    place = F.row_number().over(newest_first) - 1
    piece = F.floor(F.col("place") / max_length).cast("int")
    first_of_piece = (F.col("place") % max_length == 0) & (F.col("place") > 0)
    pieces = F.when(first_of_piece, F.array(piece, piece - 1)).otherwise(F.array(piece))
    cut = steps.withColumn("place", place).withColumn("piece", F.explode(pieces)).where(F.col("piece") < count)
    step = F.struct((-F.col("place")).alias("age"), *READ_COLUMNS)
    collected = cut.groupBy("user_id", "piece").agg(F.array_sort(F.collect_list(step)).alias("steps"))
    return collected.select("user_id", "piece", *(F.col(f"steps.{name}").alias(name) for name in READ_COLUMNS))


def training_rows(pieces: DataFrame, n_items: int, max_length: int, before: datetime | None = None) -> DataFrame:
    """``windows`` or ``sequences`` as fixed-length rows: user_id, piece, and item, type, at (epoch seconds), value (NaN if there
    is none) and weight, each an array of ``max_length + 1``, left-padded; a whole sequence is piece 0.

    Keeps events with an item index up to ``n_items`` and, if given, a time before ``before``; drops pieces with fewer than two
    events left. An event has weight 1, plus its entry in an optional column ``rewards`` (map of event id to number).
    """

    def fits(step: Column) -> Column:
        in_time = F.lit(True) if before is None else step["event_time"] < F.lit(before)
        return (step["item_idx"] <= n_items) & in_time

    length = max_length + 1
    steps = F.filter(F.arrays_zip(*READ_COLUMNS), fits)
    rewards = F.col("rewards") if "rewards" in pieces.columns else F.lit(None).cast("map<string,double>")
    piece = F.col("piece") if "piece" in pieces.columns else F.lit(0)
    known = pieces.select("user_id", piece.alias("piece"), steps.alias("steps"), rewards.alias("rewards"))
    known = known.where(F.size("steps") >= 2).withColumn(
        "steps", F.slice("steps", F.greatest(F.size("steps") - length + 1, F.lit(1)), F.lit(length))
    )
    names = F.array(*(F.lit(name) for name in EVENT_TYPES))
    return known.select(
        *KEY,
        _padded(lambda step: step["item_idx"], "int", length).alias("item"),
        _padded(lambda step: F.array_position(names, step["event_type"]), "int", length).alias("type"),
        _padded(lambda step: F.unix_seconds(step["event_time"]), "bigint", length).alias("at"),
        _padded(lambda step: F.coalesce(step["value"], F.lit(math.nan)), "double", length).alias("value"),
        _padded(lambda step: F.lit(1.0) + _reward(step["event_id"]), "float", length).alias("weight"),
    )


def export_histories(
    steps: DataFrame, spec: ModelSpec, options: Train, directory: Path, facts: dict[str, Any]
) -> Snapshot:
    """Write the snapshot (``export``) of whole histories for a model: all ``steps`` in ``windows``."""
    pieces = windows(steps, spec.max_length, options.windows)
    rows = training_rows(pieces, spec.n_items, spec.max_length)
    return export(rows, directory, facts, options.processes, options.seed)


def export(rows: DataFrame, directory: Path, facts: dict[str, Any], processes: int, seed: int) -> Snapshot:
    """Write a snapshot of ``training_rows`` and its manifest. A finished snapshot of the same facts is reused; one of other
    facts is never overwritten.

    Rows are ordered by a hash of user and piece and dealt out to the files in turn. If they do not divide evenly, the first rows
    are repeated with weight 0, as often as needed, so no row is lost and none counts twice. Raises TableError if there is no
    row, or if the folder holds another snapshot.
    """
    facts = json.loads(json.dumps({**facts, "processes": processes}, default=str))
    if (directory / "manifest.json").exists():
        found = Snapshot.open(directory)
        if differing := [name for name, value in facts.items() if found.manifest.get(name) != value]:
            raise TableError(
                f"{directory} holds a training snapshot with a different {differing[0]}; delete the folder"
            )
        return found
    order = Window.orderBy(F.xxhash64(*KEY, F.lit(seed)), *KEY)
    places = rows.select(*KEY, (F.row_number().over(order) - 1).alias("place")).persist()
    count = places.count()
    if count == 0:
        raise TableError("no sequence has two events to train on; ingest more, or check evaluate.protocol and its cuts")
    files = processes * max(1, -(-count // (processes * ROWS_PER_FILE)))
    missing = -count % files
    placed = rows.join(places, list(KEY), how="inner").drop(*KEY)
    copies = F.sequence(F.col("place") + count, F.lit(count + missing - 1), F.lit(count))
    no_weight = F.transform("weight", lambda weight: weight * 0)
    extra = placed.where(F.col("place") < missing).withColumn("weight", no_weight)
    whole = placed.unionByName(extra.withColumn("place", F.explode(copies))) if missing else placed
    temporary = directory.with_name(directory.name + ".writing")
    shutil.rmtree(temporary, ignore_errors=True)
    dealt = whole.withColumn("file", F.pmod("place", F.lit(files)).cast("int"))
    dealt.repartition(files, "file").sortWithinPartitions("file", "place").drop("place").write.partitionBy(
        "file"
    ).parquet(str(temporary / "parts"))
    places.unpersist()
    entries = []
    for file in range(files):
        (part,) = (temporary / "parts" / f"file={file}").glob("*.parquet")
        path = temporary / f"rows-{file:05d}.parquet"
        part.rename(path)
        entries.append({"path": path.name, "rows": (count + missing) // files, "sha256": digest(path)})
    shutil.rmtree(temporary / "parts")
    manifest = {**facts, "schema": SCHEMA, "sequences": count, "filled_up": missing, "files": entries}
    (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
    shutil.rmtree(directory, ignore_errors=True)
    temporary.rename(directory)
    return Snapshot(directory, manifest)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _padded(value: Any, kind: str, length: int) -> Column:
    values = F.transform("steps", lambda step: value(step).cast(kind))
    return F.concat(F.array_repeat(F.lit(0).cast(kind), F.lit(length) - F.size("steps")), values)


def _reward(event_id: Column) -> Column:
    return F.coalesce(F.try_element_at("rewards", event_id), F.lit(0.0))
