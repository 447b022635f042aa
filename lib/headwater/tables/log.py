"""A table's commits, newest first, each with its note.

The log of a local table is read from its files, and only as far back as the caller needs: a job looks up its position several
times, and a Spark job for each look would cost more than the job's own work. Elsewhere Delta's history is read, in growing
portions.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import functions as F

COMMIT_FILE = re.compile(r"\d{20}\.json")
FIRST_PORTION = 16
UPKEEP = (
    "OPTIMIZE", "REORG", "VACUUM START", "VACUUM END", "CREATE TABLE", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES",
    "DROP FEATURE", "Deletion Vector Tombstones", "Empty Commit",
)  # fmt: skip
"""Operations that change no row."""
ROW_METRICS = {"WRITE": ("numOutputRows",), "MERGE": ("numTargetRowsInserted", "numTargetRowsUpdated")}
"""The metrics that count new rows, for each operation that our jobs use."""


@dataclass(frozen=True)
class Commit:
    """One version of a table. ``at``: epoch seconds; ``note``: the writer's note; ``metrics``: Delta's counts."""

    version: int
    at: float
    operation: str
    note: dict[str, Any]
    metrics: dict[str, str]

    @property
    def job(self) -> str | None:
        return self.note.get("job")

    @property
    def rows(self) -> float:
        """The number of rows inserted, for a merge also of those updated; infinity if unknown, for instance after an operation
        that none of our jobs performs, so that it never counts as few."""
        if self.operation in UPKEEP:
            return 0
        counted = ROW_METRICS.get(self.operation, ())
        if not all(name in self.metrics for name in counted):
            return math.inf
        return sum(int(self.metrics[name]) for name in counted) if counted else math.inf

    @property
    def by(self) -> str | None:
        """The job that wrote the commit, which may have written it in the name of ``job``."""
        return self.note.get("by", self.job)

    @property
    def job_note(self) -> dict[str, Any]:
        """The note without ``by``."""
        return {name: value for name, value in self.note.items() if name != "by"}


def has_commit(table: Path) -> bool:
    """Whether a local table has a first commit. Delta creates the log folder before that commit, and may die in between."""
    try:
        with os.scandir(table / "_delta_log") as files:  # the log may be long, but one of its first files is enough
            return any(file.name.endswith((".json", ".parquet")) for file in files)
    except (FileNotFoundError, NotADirectoryError):
        return False


def local_commits(table: Path) -> Iterator[Commit]:
    """The commits of a table in a local folder."""
    for version in count(_newest_version(table / "_delta_log"), -1):
        try:
            lines = _commit_file(table / "_delta_log", version).read_text().splitlines()
        except FileNotFoundError:
            return  # before the first version, or older than the log's retention
        info: dict[str, Any] = next(
            (action["commitInfo"] for line in lines if "commitInfo" in (action := json.loads(line))), {}
        )
        yield Commit(
            version,
            info.get("timestamp", 0) / 1000,
            info.get("operation", ""),
            _note(info.get("userMetadata")),
            info.get("operationMetrics", {}),
        )


def _newest_version(log: Path) -> int:
    """The newest version, searched from the last checkpoint on: a log that is kept for months has so many files that listing
    them takes longer than reading the commits that are needed."""
    try:
        version = int(json.loads((log / "_last_checkpoint").read_text())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        version = -1
    if not _commit_file(log, version).exists():
        version = max((int(name[:20]) for name in os.listdir(log) if COMMIT_FILE.fullmatch(name)), default=-1)
    while _commit_file(log, version + 1).exists():
        version += 1
    return version


def _commit_file(log: Path, version: int) -> Path:
    return log / f"{version:020d}.json"


def remote_commits(table: DeltaTable) -> Iterator[Commit]:
    """The commits of any table, through Spark."""
    oldest, limit = None, FIRST_PORTION
    while True:
        history = table.history(limit).orderBy(F.desc("version"))
        rows = history.select(
            "version", F.unix_millis("timestamp").alias("at"), "operation", "userMetadata", "operationMetrics"
        ).collect()
        for row in rows:
            if oldest is None or row["version"] < oldest:
                oldest = row["version"]
                yield Commit(
                    oldest,
                    row["at"] / 1000,
                    row["operation"] or "",
                    _note(row["userMetadata"]),
                    row["operationMetrics"] or {},
                )
        if len(rows) < limit:
            return
        limit *= 8


def _note(text: str | None) -> dict[str, Any]:
    """The note in a commit's ``userMetadata``; empty if another writer left none, or other text."""
    try:
        note = json.loads(text or "{}")
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}
