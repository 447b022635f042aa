"""The jobs that follow a table's changes, and their positions, so that maintenance never removes unread changes.

A job that reads a change feed notes its position. Maintenance finds the unread commits here, and moves the notes past its own
commits, whose change files it is about to remove.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headwater import schemas
from headwater.frames import MAX_COLLECTED_ROWS, frame_of
from headwater.tables.log import UPKEEP, Commit
from headwater.tables.warehouse import MAINTAINER, Warehouse


@dataclass(frozen=True)
class Reader:
    """``job`` reads the changes of ``source``. Its commits to ``output`` note the version it has reached (``key``) and the time of
    that commit, because a table that is rebuilt has the same versions at other times."""

    source: str
    output: str
    job: str
    key: str
    first_run_reads_all: bool = True
    """The first run, which has no note yet, reads the whole table instead of the feed."""
    optional: bool = False
    """A site may do without the job, so nothing waits for its first run."""

    @property
    def moment_key(self) -> str:
        return f"{self.source}_at"


SEQUENCES = Reader("events", "sequences", "build_sequences", "events_version")
FEEDBACK = Reader("events", "feedback", "collect_feedback", "events_version", optional=True)
LISTS = Reader("sequences", "topn", "score_topn", "sequences_version")
HISTORY = Reader("topn", "topn_history", "score_topn", "topn_version", first_run_reads_all=False)
READERS = (SEQUENCES, FEEDBACK, LISTS, HISTORY)


@dataclass(frozen=True)
class Progress:
    """A reader's position. ``after``: the version of its source from which it can follow the changes; None if it has to read the
    whole table, because it has read nothing yet, or because the source was rebuilt since and lacks that version or has it with
    another time. ``note``: the reader's last note. ``unread``: the commits after ``after`` with rows that it has not read yet,
    newest first. ``has_all_to_read``: ``after`` is None, and the job is not one that the site does without.

    Upkeep changes no row, and --forget deletes from the reader's own table too, so commits of either never count as unread.
    """

    after: int | None
    note: dict[str, Any] | None
    unread: list[Commit]
    has_all_to_read: bool = False

    @property
    def fits_driver(self) -> bool:
        """Whether the driver can hold the unread rows."""
        return sum(commit.rows for commit in self.unread) <= MAX_COLLECTED_ROWS


def progress(warehouse: Warehouse, reader: Reader) -> Progress:
    """A reader's current position, from the logs of its source and its output."""
    last = warehouse.last_commit(reader.output, reader.job)
    note = None if last is None else last.job_note
    is_expected = note is not None or not reader.optional
    if not warehouse.exists(reader.source) or (last is None and reader.first_run_reads_all):
        return Progress(None, note, [], is_expected)
    after = None if last is None else int(last.note[reader.key])
    newer = []
    for commit in warehouse.commits(reader.source):
        if last is not None and after is not None and commit.version <= after:
            if commit.version == after and last.note.get(reader.moment_key) in (None, commit.at):
                break
            after = None
        if after is None and reader.first_run_reads_all:
            return Progress(None, note, [], is_expected)
        newer.append(commit)
    unread = [c for c in newer if c.version > 0 and c.operation not in UPKEEP and c.by != MAINTAINER]
    return Progress(after, note, unread, after is None and is_expected)


def progress_note(warehouse: Warehouse, reader: Reader, version: int) -> dict[str, Any]:
    """The note of a reader that has read its source up to ``version``."""
    moments = (commit.at for commit in warehouse.commits(reader.source) if commit.version == version)
    return {reader.key: version, reader.moment_key: next(moments, None)}


def advance(warehouse: Warehouse, reader: Reader) -> None:
    """Move the note of a reader without unread commits to the end of its source's log, past upkeep commits."""
    current = progress(warehouse, reader)
    if current.unread or current.after is None or current.note is None:
        return
    if current.after < (version := warehouse.version(reader.source)):
        annotate(warehouse, reader.output, {**current.note, **progress_note(warehouse, reader, version)})


def annotate(warehouse: Warehouse, table: str, note: dict[str, Any]) -> None:
    """Commit a note in the name of a job without changing a row; ``by`` records the real writer."""
    rows = frame_of(warehouse.spark, [], schemas.ddl(table))
    warehouse.append(rows, table, {**note, "by": MAINTAINER})
