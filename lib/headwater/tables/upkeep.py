"""Keep tables fast to read and small on disk, without removing changes that a job has not read yet, or a job's last note."""

from __future__ import annotations

from datetime import datetime, timedelta

from headwater import schemas
from headwater.tables import readers
from headwater.tables.warehouse import WRITER, Warehouse

REPEATED_AFTER = timedelta(days=30)
"""A job's last note is written again at this age, because a table's log, with the notes in it, is kept for 90 days only."""


def maintain(warehouse: Warehouse, retention_hours: float, now: datetime) -> tuple[dict[str, int], dict[str, str]]:
    """Optimise and vacuum every existing table; returns counts, and for each table not vacuumed the jobs that are behind."""
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
    """The jobs that have not yet read a commit made before ``oldest`` (epoch seconds), whose change files would be removed."""
    following = [reader for reader in readers.READERS if reader.source == table]
    return [r.job for r in following if any(commit.at <= oldest for commit in readers.progress(warehouse, r).unread)]


def repeat_notes(warehouse: Warehouse, tables: list[str], oldest: float) -> None:
    """Commit the last note of each table's writer again if it was made before ``oldest`` (epoch seconds)."""
    for table in tables:
        with warehouse.locked(table):
            last = warehouse.last_commit(table, WRITER[table])
            if last is not None and last.at < oldest:
                readers.annotate(warehouse, table, last.said)
