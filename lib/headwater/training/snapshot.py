"""The training snapshot: immutable Parquet of fixed-length rows and a manifest, from one version of ``sequences``.

A live Delta table is no input for training (its folder holds other versions' files), so a snapshot is written once:
left-padded integer arrays, no nulls, no user identifiers, the same number of rows in every file, so that ranks which
take ``files[rank::world]`` always have equally many steps.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from headwater.errors import TableError
from headwater.schemas import EVENT_TYPES

ROWS_PER_FILE = 65_536
SCHEMA = {"item": "array<int>", "type": "array<int>", "weight": "array<float>"}


@dataclass(frozen=True)
class Snapshot:
    """A finished snapshot: where it is and what its manifest says."""

    directory: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, directory: Path) -> Snapshot:
        """Open a snapshot and check every file's digest; raises TableError naming the file that is not as written."""
        try:
            manifest = json.loads((directory / "manifest.json").read_text())
        except (OSError, ValueError):
            raise TableError(
                f"training snapshot {directory} has no readable manifest.json; delete the folder"
            ) from None
        for entry in manifest["files"]:
            path = directory / entry["path"]
            if not path.exists() or digest(path) != entry["sha256"]:
                raise TableError(
                    f"training snapshot file {path} is missing or not as it was written; delete {directory}"
                )
        return cls(directory, manifest)

    @property
    def files(self) -> list[str]:
        return [str((self.directory / entry["path"]).resolve()) for entry in self.manifest["files"]]


def training_rows(
    sequences: DataFrame, n_items: int, max_length: int, before: datetime | None = None, leave_out: int = 0
) -> DataFrame:
    """Sequences as fixed-length rows: user_id, item, type, weight, each array ``max_length + 1`` long, left-padded.

    Only events with an item index up to ``n_items`` and, if given, a time earlier than ``before``; the last
    ``leave_out`` events of each user are dropped. Sequences with fewer than two events left are no rows. A column
    ``rewards`` (map of event id to number), where there is one, adds to the weight 1 of an event.
    """

    def fits(step: Column) -> Column:
        in_time = F.lit(True) if before is None else step["event_time"] < F.lit(before)
        return (step["item_idx"] <= n_items) & in_time

    length = max_length + 1
    steps = F.filter(F.arrays_zip("item_idx", "event_type", "event_time", "event_id"), fits)
    rewards = F.col("rewards") if "rewards" in sequences.columns else F.lit(None).cast("map<string,double>")
    known = sequences.select("user_id", steps.alias("steps"), rewards.alias("rewards"))
    left = F.greatest(F.size("steps") - leave_out, F.lit(0))
    known = known.withColumn("steps", F.slice("steps", F.lit(1), left)).where(F.size("steps") >= 2)
    known = known.withColumn(
        "steps", F.slice("steps", F.greatest(F.size("steps") - length + 1, F.lit(1)), F.lit(length))
    )
    names = F.array(*(F.lit(name) for name in EVENT_TYPES))
    return known.select(
        "user_id",
        _padded(lambda step: step["item_idx"], "int", length).alias("item"),
        _padded(lambda step: F.array_position(names, step["event_type"]), "int", length).alias("type"),
        _padded(lambda step: F.lit(1.0) + _reward(step["event_id"]), "float", length).alias("weight"),
    )


def export(rows: DataFrame, directory: Path, facts: dict[str, Any], processes: int, seed: int) -> Snapshot:
    """Write a snapshot of ``training_rows`` and its manifest; a finished one of the same facts is used as it is, one of
    other facts is never overwritten.

    Rows are ordered by a hash of the user and dealt out to the files in turn; where they do not divide, rows from the
    front fill up with weight 0, as often as needed, so that none is lost and none counts twice.
    Raises TableError when there is no row at all, or when the folder holds another snapshot.
    """
    facts = json.loads(json.dumps({**facts, "processes": processes}, default=str))
    if (directory / "manifest.json").exists():
        found = Snapshot.open(directory)
        if differing := [name for name, value in facts.items() if found.manifest.get(name) != value]:
            raise TableError(f"{directory} holds a training snapshot with another {differing[0]}; delete the folder")
        return found
    order = Window.orderBy(F.xxhash64("user_id", F.lit(seed)), "user_id")
    places = rows.select("user_id", (F.row_number().over(order) - 1).alias("place")).persist()
    count = places.count()
    if count == 0:
        raise TableError("no sequence has two events to train on; ingest more, or check evaluate.protocol and its cuts")
    files = processes * max(1, -(-count // (processes * ROWS_PER_FILE)))
    missing = -count % files
    placed = rows.join(places, "user_id", how="inner").drop("user_id")
    copies = F.sequence(F.col("place") + count, F.lit(count + missing - 1), F.lit(count))
    extra = placed.where(F.col("place") < missing).select(
        "item", "type", F.transform("weight", lambda w: w * 0).alias("weight"), F.explode(copies).alias("place")
    )
    whole = placed.select("item", "type", "weight", "place").unionByName(extra) if missing else placed
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
