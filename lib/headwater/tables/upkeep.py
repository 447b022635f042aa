"""Keep tables fast to read and small on disk, without removing what a job has not read yet, or a job's last note."""

from __future__ import annotations

from datetime import datetime, timedelta

from pyspark.sql import functions as F

from headwater import schemas
from headwater.config import KeepDays
from headwater.tables import readers
from headwater.tables.readers import Reader
from headwater.tables.warehouse import MAINTAINER, WRITER, Warehouse, try_read_changes

REPEAT_NOTES_AFTER = timedelta(days=30)
"""A job's last note is written again at this age, because a table's log, with the notes in it, is kept for 90 days only."""

AGE_COLUMN = {
    "events": "event_date",
    "quarantine": "ingested_at",
    "topn_history": "generated_at",
    "feedback": "event_time",
}
"""The column that tells a row's age, in the tables of which old rows may be deleted."""


def maintain(warehouse: Warehouse, retention_hours: float, now: datetime) -> tuple[dict[str, int], dict[str, str]]:
    """Optimise and vacuum every existing table; returns counts, and for each table not vacuumed the jobs that are behind."""
    oldest = (now - timedelta(hours=retention_hours)).timestamp()
    tables = [table for table in schemas.TABLES if warehouse.exists(table)]
    repeat_notes(warehouse, tables, (now - REPEAT_NOTES_AFTER).timestamp())
    removed, not_vacuumed = 0, {}
    for table in tables:
        warehouse.optimize(table)
        behind = late_readers(warehouse, table, oldest)
        if behind:
            not_vacuumed[table] = ", ".join(behind)
        else:
            removed += warehouse.vacuum(table, retention_hours)
    return {
        "tables": len(tables),
        "tables_vacuumed": len(tables) - len(not_vacuumed),
        "files_removed": removed,
    }, not_vacuumed


def delete_old(
    warehouse: Warehouse, keep_days: KeepDays, window: timedelta, now: datetime
) -> tuple[int, dict[str, str]]:
    """Delete rows that are older than ``keep_days``; returns how many, and for each table that keeps old rows the jobs that have
    yet to read them. ``window``: how long after a list was made an action can answer it; ``now`` is in UTC.

    `events` loses whole days, once their last instant is too old: a day is a partition, and Delta drops it unread.
    """
    deleted, needed = 0, {}
    for table, days in keep_days:
        if days is None or not warehouse.exists(table):
            continue
        with warehouse.locked(table):
            before = now - timedelta(days=days)
            if table == "events":
                before = before.replace(hour=0, minute=0, second=0, microsecond=0)
            old = F.col(AGE_COLUMN[table]) < F.lit(before.date() if table == "events" else before)
            rows = warehouse.read(table).where(old).count()
            if not rows:
                continue
            if behind := waiting_readers(warehouse, table, before, window):
                needed[table] = ", ".join(behind)
            else:
                warehouse.delete_where(table, old, {"job": MAINTAINER, "what": "keep_days"})
                deleted += rows
    return deleted, needed


def delete_old_vectors(warehouse: Warehouse, keep_versions: int | None) -> int:
    """Delete the item vectors of all but the newest ``keep_versions`` model versions and the one written last, to which a
    rollback may have gone back; returns the number of rows."""
    table = "item_embeddings"
    if keep_versions is None or not warehouse.exists(table):
        return 0
    with warehouse.locked(table):
        last = warehouse.last_note(table, WRITER[table]) or {}
        rows = warehouse.read(table).groupBy("model_version").count().orderBy(F.desc("model_version")).collect()
        old = {version: count for version, count in rows[keep_versions:] if version != last.get("model_version")}
        if old:
            warehouse.delete_where(
                table, F.col("model_version").isin(*old), {"job": MAINTAINER, "what": "keep_versions"}
            )
    return sum(old.values())


def waiting_readers(warehouse: Warehouse, table: str, before: datetime, window: timedelta) -> list[str]:
    """The jobs that have yet to read rows of a table from before a moment. For `topn_history` this is the job that looks up
    lists there, if it has yet to read events that can answer them."""
    if table == "topn_history":
        following, until = [readers.FEEDBACK], before + window
    else:
        following, until = [reader for reader in readers.READERS if reader.source == table], before
    return [reader.job for reader in following if has_unread(warehouse, reader, until)]


def has_unread(warehouse: Warehouse, reader: Reader, before: datetime) -> bool:
    """Whether a reader of `events` has yet to read events from before a moment; True if nobody can tell any more."""
    progress = readers.progress(warehouse, reader)
    if progress.has_all_to_read:
        return True
    if progress.after is None or not progress.unread:
        return False
    after, until = progress.after, warehouse.version(reader.source)
    old = F.col("event_time") < F.lit(before)
    return not try_read_changes(lambda: warehouse.inserted(reader.source, after, until).where(old).isEmpty())


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
                readers.annotate(warehouse, table, last.job_note)
