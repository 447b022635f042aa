"""A table's commits, newest first, each with its note.

The log of a local table is read as files, and only as far back as somebody asks: a job asks several times how far it
has come, and a Spark job for each answer would cost more than the job's work. Elsewhere Delta's history is asked, in
growing portions.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import functions as F

NAME = re.compile(r"\d{20}\.json")
PORTION = 16


@dataclass(frozen=True)
class Commit:
    """One version of a table. ``at``: epoch seconds; ``note``: what the writer said; ``metrics``: Delta's counts."""

    version: int
    at: float
    operation: str
    note: dict[str, Any]
    metrics: dict[str, str]

    @property
    def job(self) -> str | None:
        return self.note.get("job")

    @property
    def rows(self) -> int:
        """How many rows it inserted, and by a merge updated too."""
        merged = ("numTargetRowsInserted", "numTargetRowsUpdated")
        counted = merged if self.operation == "MERGE" else ("numOutputRows",)
        return sum(int(self.metrics.get(name, 0)) for name in counted)

    @property
    def by(self) -> str | None:
        """Who wrote it: the job, unless another wrote in its name."""
        return self.note.get("by", self.job)

    @property
    def said(self) -> dict[str, Any]:
        """The note without who wrote it."""
        return {name: value for name, value in self.note.items() if name != "by"}


def begun(table: Path) -> bool:
    """Whether a local folder holds a first commit; Delta makes the folder of its log before that, and may die in between."""
    try:
        with os.scandir(table / "_delta_log") as files:  # one of the first will do, of a log that may be long
            return any(file.name.endswith((".json", ".parquet")) for file in files)
    except (FileNotFoundError, NotADirectoryError):
        return False


def local(table: Path) -> Iterator[Commit]:
    """The commits of a table in a local folder."""
    names = sorted((file.name for file in (table / "_delta_log").iterdir() if NAME.fullmatch(file.name)), reverse=True)
    for name in names:
        try:
            lines = (table / "_delta_log" / name).read_text().splitlines()
        except FileNotFoundError:
            return  # older than the log is kept, and cleaned up just now
        info: dict[str, Any] = next(
            (action["commitInfo"] for line in lines if "commitInfo" in (action := json.loads(line))), {}
        )
        yield Commit(
            int(name.split(".")[0]),
            info.get("timestamp", 0) / 1000,
            info.get("operation", ""),
            _note(info.get("userMetadata")),
            info.get("operationMetrics", {}),
        )


def remote(table: DeltaTable) -> Iterator[Commit]:
    """The commits of any table, through Spark."""
    oldest, limit = None, PORTION
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
    """The note in a commit's ``userMetadata``; empty where another writer left none, or text of its own."""
    try:
        note = json.loads(text or "{}")
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}
