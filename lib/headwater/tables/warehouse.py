"""The warehouse: one Delta table per name, at ``<root>/<table>``.

How a job knows where to resume: every commit carries a note (Delta's ``userMetadata``) that names the job that wrote it and
what that job had read, for instance ``{"job": "build_sequences", "events_version": 7}``. Data and note are one atomic
commit, so a job that is killed and run again finds exactly the work that is left.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from delta.exceptions.captured import ConcurrentTransactionException
from delta.tables import DeltaMergeBuilder, DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession

from headwater import local, schemas
from headwater.errors import TableError
from headwater.frames import frame_of
from headwater.tables import locks, log
from headwater.tables.failpoints import failpoint
from headwater.tables.log import Commit
from headwater.text import first_line

WRITER = {
    "events": "ingest_events",
    "quarantine": "ingest_events",
    "items": "ingest_events",
    "ingest_files": "ingest_events",
    "sequences": "build_sequences",
    "item_embeddings": "score_topn",
    "topn": "score_topn",
    "topn_history": "score_topn",
    "sections": "score_topn",
    "feedback": "collect_feedback",
    "model_metrics": "evaluate_model",
    "promotions": "promote_model",
}
"""The job that writes each table."""

MAINTAINER = "maintain_tables"
"""The job whose commits change no row that another job needs to read."""

PACK_BELOW_BYTES = 64 * 2**20
"""Files of this size are not packed again: they are read fast enough, and packing them would cost more than it saves."""

MISSING_FILE = re.compile(r"FILE_NOT_EXIST|FileNotFoundException|[Ff]ile .* does not exist")
"""Spark's messages for a table file that no longer exists."""

Result = TypeVar("Result")

DELETION_VECTORS = ("delta.enableDeletionVectors", "true")
"""The property of a table in which replaced rows are only marked as deleted and their files left unchanged."""

NOTE_SETTING = "spark.databricks.delta.commitInfo.userMetadata"


@dataclass(frozen=True)
class Position:
    """How far a job has come in a table that it writes: the version and the note of its last commit; that of the table and None if
    there is none."""

    version: int
    note: dict[str, Any] | None


class Warehouse:
    """The tables under ``root``, a local folder or any URI that Spark can write to.

    Threads share a lock that one of them holds: whoever takes it starts its helpers after that, and waits for them before it is
    released. ``deletion_vectors``: in the tables of ``schemas.REPLACED``, replaced rows are marked as deleted and their files left
    unchanged.
    """

    def __init__(
        self, spark: SparkSession, root: str, lock_timeout_seconds: float = 600, deletion_vectors: bool = False
    ) -> None:
        folder = local.folder(root)
        self.spark = spark
        self.is_local = folder is not None
        self.root = root.rstrip("/") if folder is None else str(folder)
        self.lock_timeout_seconds = lock_timeout_seconds
        self._needs_deletion_vectors = set(schemas.REPLACED if deletion_vectors else ())
        self._held: set[str] = set()

    def path(self, table: str) -> str:
        """The path of a table, whose name must be in ``schemas.TABLES``."""
        assert table in schemas.TABLES, table
        return f"{self.root}/{table}"

    def exists(self, table: str) -> bool:
        if self.is_local:
            return log.has_commit(Path(self.path(table)))
        return DeltaTable.isDeltaTable(self.spark, self.path(table))

    def version(self, table: str) -> int:
        """The newest version of a table, counted from 0. Raises TableError if the table is missing."""
        return next(self.commits(table)).version

    def rows_version(self, table: str) -> int:
        """The newest version whose commit may have changed rows. Raises TableError if the table is missing."""
        return next(commit.version for commit in self.commits(table) if commit.operation not in log.UPKEEP)

    def read(self, table: str, version: int | None = None) -> DataFrame:
        """The columns of a table in the order of ``schemas.TABLES``, at the newest version or at ``version``.

        Raises TableError if the table is missing or unreadable, lacks a column, or has a column of another type.
        """
        self._need(table)
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        try:
            frame = reader.load(self.path(table))
            found = dict(frame.dtypes)
        except Exception as error:
            raise TableError(f"table {table} at {self.path(table)} cannot be read: {first_line(error)}") from error
        for column, kind in schemas.TABLES[table].items():
            if found.get(column) != kind:
                raise TableError(
                    f"table {table} at {self.path(table)} has another schema: column {column} is "
                    f"{found.get(column, 'missing')}, this release reads {kind}"
                )
        return frame.select(schemas.columns(table))

    def pinned(self, table: str) -> DataFrame:
        """A table's rows at the present version, whatever is committed before they are read."""
        return self.read(table, self.version(table))

    def create(self, table: str) -> None:
        """Create an empty table with the schema of ``schemas.TABLES`` if there is none; an existing table gets deletion vectors
        if it should have them."""
        if self.exists(table):
            self._enable_deletion_vectors(table)
            return
        builder = DeltaTable.createIfNotExists(self.spark).location(self.path(table))
        for column in frame_of(self.spark, [], schemas.ddl(table)).schema:
            builder = builder.addColumn(column.name, column.dataType, comment=schemas.comment(table, column.name))
        if partitions := schemas.PARTITIONS.get(table):
            builder = builder.partitionedBy(*partitions)
        if table in schemas.CHANGE_FEED:
            builder = builder.property("delta.enableChangeDataFeed", "true")
        if table in self._needs_deletion_vectors:
            builder = builder.property(*DELETION_VECTORS)
        builder = builder.property("delta.dataSkippingStatsColumns", ",".join(schemas.stats_columns(table)))
        builder = builder.property("delta.logRetentionDuration", "interval 90 days")
        with self.locked(table):
            if self.is_local and not self.exists(table):
                # the remains of a killed first commit would keep Delta from creating the table
                shutil.rmtree(Path(self.path(table)) / "_delta_log", ignore_errors=True)
            builder.execute()

    def _enable_deletion_vectors(self, table: str) -> None:
        """Enable deletion vectors on a table that should have them; checked once per table, because the check is a Spark job."""
        if table not in self._needs_deletion_vectors:
            return
        name, value = DELETION_VECTORS
        with self.locked(table):
            if self._delta(table).detail().first()["properties"].get(name) != value:  # type: ignore[index]
                self.spark.sql(f"ALTER TABLE delta.`{self.path(table)}` SET TBLPROPERTIES ('{name}' = '{value}')")
        self._needs_deletion_vectors.discard(table)

    def append(self, frame: DataFrame, table: str, note: dict[str, Any], number: int | None = None) -> None:
        """Append rows. With a ``number``, which must rise from one append by a job to the next, rows are left out if the job has
        appended to the table with this number or a higher one, in any process: that holds off a local disk too, where no lock
        is taken."""
        once = {} if number is None else {"txnAppId": note["job"], "txnVersion": str(number)}
        with suppress(ConcurrentTransactionException):  # another process commits this number now
            self._write(frame, table, "append", note, **once)

    def append_after(self, position: Position, frame: DataFrame, table: str, note: dict[str, Any]) -> None:
        """Append rows that were computed from what the job had written at ``position``. Raises TableError if another process has
        written in the job's name since then, unless it was these rows: without locks both would append the same ones.

        Of two that look at the same moment, Delta lets one append (``number``). What is left is another's merge or overwrite
        between the look and the append, and a commit right after the append, for which this one takes its own for another's.
        """
        expected, current = json.loads(json.dumps(note)), self.position(table, note["job"])
        if current.note is None or current == position:
            self.append(frame, table, note, position.version)
            current = self.position(table, note["job"])
        if current.note != expected:
            raise TableError(
                f"table {table} was written by another {note['job']} at the same time; run the job again, and only one at a time "
                "unless the warehouse is on a local disk"
            )

    def overwrite(self, frame: DataFrame, table: str, note: dict[str, Any]) -> None:
        """Replace all rows in one commit; readers see either the old rows or the new ones."""
        self._write(frame, table, "overwrite", note)

    def merge(
        self,
        frame: DataFrame,
        table: str,
        note: dict[str, Any],
        update_when: str | None = None,
        delete_when: str | None = None,
        insert_when: str | None = None,
    ) -> dict[str, int]:
        """Upsert ``frame`` (unique by the table's key) in one commit; conditions can refer to ``new`` and ``old``.

        ``delete_when`` is tried first, then ``update_when``; rows that match neither stay unchanged.
        Returns the numbers of rows inserted, updated and deleted.
        """
        self.create(table)

        def insert(merge: DeltaMergeBuilder) -> DeltaMergeBuilder:
            return merge.whenNotMatchedInsert(condition=insert_when, values=_values(table))  # type: ignore[arg-type]

        return self._merge(frame, table, note, update_when, delete_when, insert)

    def upsert(
        self,
        position: Position,
        known: DataFrame,
        new: DataFrame,
        table: str,
        note: dict[str, Any],
        delete_when: str | None = None,
    ) -> dict[str, int]:
        """Like ``merge``, for a caller who knows which keys are in the table: those of the ``known`` rows are (other known rows
        have no effect), those of the ``new`` rows are not. ``position`` is older than that knowledge.

        A MERGE with an insert clause sorts the whole table by its key, an update-only MERGE does not. So new rows, if any, are
        appended first, in a separate commit (``append_after``). That commit repeats the note of the job's last commit, and so does
        not advance its readings: if the job dies after it, both commits are repeated. ``next``, the note to come, tells it from
        another's.
        """
        inserted = 0
        with self.locked(table):
            if not new.isEmpty():
                assert position.note is not None, "a job that knows a table's keys has written to it"
                before = {name: position.note.get(name) for name in note}
                self.append_after(position, new, table, {**before, "next": note})
                failpoint(f"{note['job']}:after_new")
                inserted = next(int(commit.rows) for commit in self.commits(table) if commit.operation == "WRITE")
            return {**self._merge(known, table, note, None, delete_when), "inserted": inserted}

    def delete(self, table: str, given: DataFrame, condition: str, note: dict[str, Any]) -> int:
        """Delete the rows that satisfy a condition with some row of ``given``, in one commit; returns how many.

        The condition can refer to ``old`` and ``given``. Values are passed as rows and not in the text of the condition, so
        they are never parsed as SQL, and Delta's log, which keeps every condition, does not contain them.
        """
        with self.locked(table), self._with_note(note):
            delta = self._delta(table)
            delta.alias("old").merge(given.alias("given"), condition).whenMatchedDelete().execute()
            metrics = self._last_merge_metrics(table)
        return int(metrics.get("numTargetRowsDeleted", 0))

    def delete_where(self, table: str, condition: Column, note: dict[str, Any]) -> None:
        """Delete the rows that satisfy a condition, in one commit. Where the condition is on partition columns alone, no row is
        read or written.

        Delta's log keeps the condition as text, so it must not contain a value that can name a person; ``delete`` takes those.
        """
        with self.locked(table), self._with_note(note):
            self._delta(table).delete(condition)

    def optimize(self, table: str) -> None:
        """Pack small files into larger ones; the rows stay the same."""
        with self.locked(table), self._with_note({"job": MAINTAINER}):
            self._delta(table).optimize().executeCompaction()

    def pack(self, table: str) -> None:
        """Pack files smaller than ``PACK_BELOW_BYTES`` into larger ones, and leave the other files unchanged."""
        with self._setting("spark.databricks.delta.optimize.minFileSize", str(PACK_BELOW_BYTES)):
            self.optimize(table)

    def purge(self, table: str) -> None:
        """Rewrite files with rows that a deletion vector marks as deleted, so that no current file holds those rows."""
        with self.locked(table), self._with_note({"job": MAINTAINER}):
            self.spark.sql(f"REORG TABLE delta.`{self.path(table)}` APPLY (PURGE)")

    def vacuum(self, table: str, retention_hours: float) -> int:
        """Remove files that no version younger than ``retention_hours`` needs; returns how many."""
        unchecked = self._setting("spark.databricks.delta.retentionDurationCheck.enabled", "false")
        with self.locked(table), self._with_note({"job": MAINTAINER}), unchecked, self._silence():
            self._delta(table).vacuum(retention_hours)
            last = next(self.commits(table))
        if last.operation != "VACUUM END":
            return 0  # Delta does not log vacuums on this store
        return int(last.metrics.get("numDeletedFiles", 0))

    def commits(self, table: str) -> Iterator[Commit]:
        """The commits of a table, newest first, read lazily. Raises TableError if the table is missing."""
        self._need(table)
        return log.local_commits(Path(self.path(table))) if self.is_local else log.remote_commits(self._delta(table))

    def last_note(self, table: str, job: str) -> dict[str, Any] | None:
        """The note of ``last_commit`` without ``by``; None if there is no such commit."""
        last = self.last_commit(table, job)
        return None if last is None else last.job_note

    def last_commit(self, table: str, job: str) -> Commit | None:
        """The newest commit to a table by ``job``, or in its name; None if there is none."""
        if not self.exists(table):
            return None
        return next((commit for commit in self.commits(table) if commit.job == job), None)

    def position(self, table: str, job: str) -> Position:
        """A job's position in a table. Raises TableError if the table is missing."""
        last = self.last_commit(table, job)
        return Position(self.version(table), None) if last is None else Position(last.version, last.job_note)

    def changes(self, table: str, after: int, until: int) -> DataFrame:
        """Change-feed rows of the versions ``after + 1 … until`` with ``_change_type`` and ``_commit_version``.

        ``try_read_changes`` tells whether they can be read. If the log of these versions was cleaned up, this call fails; if their
        files were vacuumed, the reading of the rows does.
        """
        if after >= until:
            return frame_of(self.spark, [], schemas.ddl(table) + ", _change_type string, _commit_version bigint")
        reader = self.spark.read.format("delta").option("readChangeFeed", "true")
        frame = reader.option("startingVersion", after + 1).option("endingVersion", until).load(self.path(table))
        return frame.select(*schemas.columns(table), "_change_type", "_commit_version")

    def inserted(self, table: str, after: int, until: int) -> DataFrame:
        """The rows inserted into a table in the versions ``after + 1 … until``, from its change feed."""
        return self.changes(table, after, until).where("_change_type = 'insert'").select(schemas.columns(table))

    @contextmanager
    def locked(self, *tables: str) -> Iterator[None]:
        """Hold the write locks of some tables; locks that this process already holds are not taken again. Off a local disk no
        lock is taken. Raises TableError if another writer holds a lock for too long."""
        wanted = tuple(table for table in tables if table not in self._held)
        if not self.is_local or not wanted:
            yield
            return
        with locks.locked(Path(self.root) / "_locks", wanted, self.lock_timeout_seconds):
            self._held |= set(wanted)
            try:
                yield
            finally:
                self._held -= set(wanted)

    def holds(self, table: str) -> bool:
        """Whether this process holds the write lock of a table; never off a local disk."""
        return table in self._held

    def _merge(
        self,
        frame: DataFrame,
        table: str,
        note: dict[str, Any],
        update_when: str | None,
        delete_when: str | None,
        further: Callable[[DeltaMergeBuilder], DeltaMergeBuilder] = lambda merge: merge,
    ) -> dict[str, int]:
        """One MERGE, with ``further`` clauses for unmatched rows; returns the numbers of rows inserted, updated and deleted."""
        condition = " AND ".join(f"old.{key} = new.{key}" for key in schemas.KEYS[table])
        with self.locked(table), self._with_note(note):
            merge = self._delta(table).alias("old").merge(frame.alias("new"), condition)
            if delete_when is not None:
                merge = merge.whenMatchedDelete(condition=delete_when)
            further(merge.whenMatchedUpdate(condition=update_when, set=_values(table))).execute()
            metrics = self._last_merge_metrics(table)
        return {
            "inserted": int(metrics.get("numTargetRowsInserted", 0)),
            "updated": int(metrics.get("numTargetRowsUpdated", 0)),
            "deleted": int(metrics.get("numTargetRowsDeleted", 0)),
        }

    def _last_merge_metrics(self, table: str) -> dict[str, str]:
        """The metrics of the last MERGE; with auto compaction, a commit that packs its files follows it."""
        return next(commit.metrics for commit in self.commits(table) if commit.operation == "MERGE")

    def _write(self, frame: DataFrame, table: str, mode: str, note: dict[str, Any], **options: str) -> None:
        self.create(table)
        writer = frame.select(schemas.columns(table)).write.format("delta").mode(mode).options(**options)
        with self.locked(table):
            writer.option("userMetadata", json.dumps(note)).save(self.path(table))

    def _with_note(self, note: dict[str, Any]) -> AbstractContextManager[None]:
        return self._setting(NOTE_SETTING, json.dumps(note))

    @contextmanager
    def _setting(self, key: str, value: str) -> Iterator[None]:
        """Set a setting of the session for a while."""
        before = self.spark.conf.get(key, None)
        self.spark.conf.set(key, value)
        try:
            yield
        finally:
            if before is None:
                self.spark.conf.unset(key)
            else:
                self.spark.conf.set(key, before)

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Discard for a while what Delta prints to standard output, which belongs to the job's closing line. Scala keeps the
        output per thread, and calls from one Python thread share one."""
        jvm: Any = self.spark._jvm
        console = getattr(getattr(jvm.scala, "Console$"), "MODULE$")
        before = console.out()
        console.setOutDirect(jvm.java.io.PrintStream(jvm.java.io.OutputStream.nullOutputStream()))
        try:
            yield
        finally:
            console.setOutDirect(before)

    def _delta(self, table: str) -> DeltaTable:
        self._need(table)
        return DeltaTable.forPath(self.spark, self.path(table))

    def _need(self, table: str) -> None:
        if not self.exists(table):
            raise TableError(f"table {table} does not exist at {self.path(table)}; run jobs/{WRITER[table]}.py first")


def _values(table: str) -> dict[str, Any]:
    return {column: f"new.{column}" for column in schemas.columns(table)}


def bytes_of(root: str, table: str) -> int:
    """The bytes of Parquet in a table's folder, including older versions; 0 for a table that is not local. Needs no session."""
    folder, total = local.folder(root), 0
    for file in () if folder is None else (folder / table).glob("*.parquet"):
        with suppress(FileNotFoundError):  # just vacuumed
            total += file.stat().st_size
    return total


def try_read_changes(read: Callable[[], Result]) -> Result | None:
    """The result of reading a change feed, or None if files or log entries that it needs were removed."""
    try:
        return read()
    except (PySparkException, Py4JJavaError) as error:
        if MISSING_FILE.search(str(error)):
            return None
        raise
