"""A batch: the files and ranges of messages that are ingested together, planned from the ledger and recorded in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from headwater import schemas
from headwater.frames import frame_of
from headwater.ingest import files
from headwater.ingest.files import LandingFile


@dataclass(frozen=True)
class Batch:
    """Files ingested together. ``planned``: the ledger already lists them, because an earlier run died halfway."""

    number: int
    taken_at: datetime
    files: list[LandingFile]
    planned: bool = False


def plan(
    found: list[LandingFile],
    ledger: Iterable[Any],
    last_ended: int,
    last_begun: int,
    now: datetime,
    warn: Callable[[str, list[str]], Any],
) -> list[Batch]:
    """The batches to ingest: the ledger's newest batch again if its number is above ``last_ended``, that of the last batch that
    ended, then a new one. ``last_begun``: the last number that was given, also if the ledger was since restored to an earlier
    version.

    ``warn`` is told of files that have changed or disappeared since they were recorded, and of messages that have expired.
    """
    recorded = {row["path"]: row for row in ledger}
    before = {path: (row["size_bytes"], aware(row["modified_at"])) for path, row in recorded.items()}
    if edited := files.changed(found, before):
        warn("files changed after they were ingested; they are not read again", edited)
    newest = max((row["batch"] for row in recorded.values()), default=0)
    batches = []
    if newest > last_ended:
        unfinished = {path: row for path, row in recorded.items() if row["batch"] == newest}
        remaining = [file for file in found if file.path in unfinished]
        if missing := sorted(set(unfinished) - {file.path for file in remaining}):
            warn("files of an unfinished batch are gone; their lines are lost", missing)
        if expired := [file.path for file in remaining if file.size_bytes is None and file.uri != file.path]:
            warn("messages of an unfinished batch have expired; they are lost", expired)
        batches.append(Batch(newest, aware(next(iter(unfinished.values()))["taken_at"]), remaining, planned=True))
    if new := [file for file in found if file.path not in recorded]:
        batches.append(Batch(1 + max(newest, last_ended, last_begun), now, new))
    return batches


def ledger_entries(batch: Batch) -> list[dict[str, Any]]:
    """The rows of ``ingest_files`` for a batch, one dict per file."""
    when = (batch.number, batch.taken_at)
    rows = [
        (file.path, files.source_name(file.source), file.source.format, file.size_bytes, file.modified_at, *when)
        for file in batch.files
    ]
    return [dict(zip(schemas.columns("ingest_files"), row, strict=True)) for row in rows]


def ledger_rows(spark: SparkSession, batch: Batch) -> DataFrame:
    """The same rows as a DataFrame."""
    rows = [tuple(entry.values()) for entry in ledger_entries(batch)]
    return frame_of(spark, rows, schemas.ddl("ingest_files"))


def aware(moment: datetime) -> datetime:
    """The moment in UTC. Spark returns timestamps in the local time zone of the process and without a zone."""
    return moment.astimezone(UTC)
