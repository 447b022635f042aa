"""Who follows whose changes, by version, so that maintenance never takes away what a job has yet to read.

A job that reads a change feed notes how far it came. Maintenance asks here which commits are still unread, and moves
the notes past its own commits, whose change files it is about to remove.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headwater import schemas
from headwater.in_hand import constant
from headwater.tables.log import UPKEEP, Commit
from headwater.tables.warehouse import MAINTAINER, Warehouse


@dataclass(frozen=True)
class Reader:
    """``job`` reads the changes of ``source`` and notes, in its commits to ``output``, the version it came to (``key``) and the
    moment of that commit: a table that is built anew has the same versions, at other moments."""

    source: str
    output: str
    job: str
    key: str
    starts_whole: bool = True
    """Its first run, with no note yet, reads the table as it stands and not the feed."""

    @property
    def moment_key(self) -> str:
        return f"{self.source}_at"


SEQUENCES = Reader("events", "sequences", "build_sequences", "events_version")
FEEDBACK = Reader("events", "feedback", "collect_feedback", "events_version")
LISTS = Reader("sequences", "topn", "score_topn", "sequences_version")
HISTORY = Reader("topn", "topn_history", "score_topn", "topn_version", starts_whole=False)
READERS = (SEQUENCES, FEEDBACK, LISTS, HISTORY)


@dataclass(frozen=True)
class Progress:
    """How far a reader has come. ``after``: the version of its source that it has read; None where it has read nothing of it, or
    where the source was built anew since: it has no such version, or one of another moment. ``said``: the reader's last
    note. ``unread``: the commits to its source, newest first, whose rows it has yet to see.

    Upkeep changes no row, and what was forgotten is deleted from the reader's own table too: neither is unread.
    """

    after: int | None
    said: dict[str, Any] | None
    unread: list[Commit]


def progress(warehouse: Warehouse, reader: Reader) -> Progress:
    """How far a reader has come now, by the logs of its source and of its output."""
    last = warehouse.last_commit(reader.output, reader.job)
    said = None if last is None else last.said
    if not warehouse.exists(reader.source) or (last is None and reader.starts_whole):
        return Progress(None, said, [])
    after = None if last is None else int(last.note[reader.key])
    newer = []
    for commit in warehouse.commits(reader.source):
        if last is not None and after is not None and commit.version <= after:
            if commit.version == after and last.note.get(reader.moment_key, commit.at) == commit.at:
                break
            after = None
        if after is None and reader.starts_whole:
            return Progress(None, said, [])
        newer.append(commit)
    unread = [c for c in newer if c.version > 0 and c.operation not in UPKEEP and c.by != MAINTAINER]
    return Progress(after, said, unread)


def noted(warehouse: Warehouse, reader: Reader, version: int) -> dict[str, Any]:
    """What a reader notes that has read its source up to a version."""
    moments = (commit.at for commit in warehouse.commits(reader.source) if commit.version == version)
    return {reader.key: version, reader.moment_key: next(moments, None)}


def advance(warehouse: Warehouse, reader: Reader) -> None:
    """Note that a reader that has read all there is has come to the end of its source's log, past the upkeep there."""
    come = progress(warehouse, reader)
    if come.unread or come.after is None or come.said is None:
        return
    if come.after < (version := warehouse.version(reader.source)):
        annotate(warehouse, reader.output, {**come.said, **noted(warehouse, reader, version)})


def annotate(warehouse: Warehouse, table: str, note: dict[str, Any]) -> None:
    """Commit a note in a job's name, without touching a row; ``by`` says who wrote it."""
    rows = constant(warehouse.spark, [], schemas.ddl(table))
    warehouse.append(rows, table, {**note, "by": MAINTAINER})
