"""Keep tables quick to read and small on disk, without taking from any job what it has yet to read, or said of itself."""

from __future__ import annotations

from datetime import datetime, timedelta

from headwater import schemas
from headwater.tables import readers
from headwater.tables.warehouse import WRITER, Warehouse

REPEATED_AFTER = timedelta(days=30)
"""The age from which on a job's last note is written once more: a table's log, and the notes in it, is kept for 90 days."""


def maintain(warehouse: Warehouse, retention_hours: float, now: datetime) -> tuple[dict[str, int], dict[str, str]]:
    """Optimise and vacuum every table there is; returns counts, and the tables not vacuumed with the job behind."""
    oldest = (now - timedelta(hours=retention_hours)).timestamp()
    tables = [table for table in schemas.TABLES if warehouse.exists(table)]
    repeat_notes(warehouse, tables, (now - REPEATED_AFTER).timestamp())
    removed, kept = 0, {}
    for table in tables:
        warehouse.optimize(table)
        behind = late_readers(warehouse, table, oldest)
        if behind:
            kept[table] = ", ".join(behind)
        else:
            removed += warehouse.vacuum(table, retention_hours)
    return {"tables": len(tables), "tables_vacuumed": len(tables) - len(kept), "files_removed": removed}, kept


def late_readers(warehouse: Warehouse, table: str, oldest: float) -> list[str]:
    """The jobs that have yet to read a commit made before ``oldest`` (epoch seconds), whose change files would go."""
    following = [reader for reader in readers.READERS if reader.source == table]
    return [r.job for r in following if any(commit.at <= oldest for commit in readers.progress(warehouse, r).unread)]


def repeat_notes(warehouse: Warehouse, tables: list[str], oldest: float) -> None:
    """Commit once more what the writer of a table noted last, where that was before ``oldest`` (epoch seconds)."""
    for table in tables:
        with warehouse.locked(table):
            last = warehouse.last_commit(table, WRITER[table])
            if last is not None and last.at < oldest:
                readers.annotate(warehouse, table, last.said)
