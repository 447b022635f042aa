"""Who follows whose changes, by version, so that maintenance never takes away what a job has yet to read.

A job that reads a change feed notes how far it came. Maintenance asks here which commits are still unread, and moves
the notes past its own commits, whose change files it is about to remove.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from headwater import schemas
from headwater.in_hand import constant
from headwater.tables.log import Commit
from headwater.tables.warehouse import MAINTAINER, Warehouse

UPKEEP = (
    "OPTIMIZE", "REORG", "VACUUM START", "VACUUM END", "CREATE TABLE", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES",
    "DROP FEATURE", "Deletion Vector Tombstones", "Empty Commit",
)  # fmt: skip
"""Operations that change no row."""


@dataclass(frozen=True)
class Reader:
    """``job`` reads the changes of ``source`` and notes, in its commits to ``output``, the version it came to."""

    source: str
    output: str
    job: str
    key: str
    starts_whole: bool = True
    """Its first run, with no note yet, reads the table as it stands and not the feed."""


SEQUENCES = Reader("events", "sequences", "build_sequences", "events_version")
FEEDBACK = Reader("events", "feedback", "collect_feedback", "events_version")
LISTS = Reader("sequences", "topn", "score_topn", "sequences_version")
HISTORY = Reader("topn", "topn_history", "score_topn", "topn_version", starts_whole=False)
READERS = (SEQUENCES, FEEDBACK, LISTS, HISTORY)


def came_to(warehouse: Warehouse, reader: Reader) -> int | None:
    """The version of its source that a reader has read; None where it has read nothing of it, or where the source was built
    anew since: it has no such version, or a younger one."""
    last = warehouse.last_commit(reader.output, reader.job)
    if last is None or not warehouse.exists(reader.source):
        return None
    after = int(last.note[reader.key])
    for commit in warehouse.commits(reader.source):
        if commit.version <= after:
            return after if commit.version == after and commit.at <= last.at else None
    return after  # the log is not kept for so long


def unread(warehouse: Warehouse, reader: Reader) -> list[Commit]:
    """The commits to its source, newest first, whose rows a reader has yet to see.

    Upkeep changes no row, and what was forgotten is deleted from the reader's own table too: neither counts.
    """
    if not warehouse.exists(reader.source):
        return []
    after = came_to(warehouse, reader)
    if after is None and reader.starts_whole:
        return []
    newer = takewhile(lambda commit: commit.version > (after or 0), warehouse.commits(reader.source))
    return [commit for commit in newer if commit.operation not in UPKEEP and commit.by != MAINTAINER]


def advance(warehouse: Warehouse, reader: Reader) -> None:
    """Note that a reader, which has read all there is, is past the upkeep at the end of its source's log."""
    after, note = came_to(warehouse, reader), warehouse.last_note(reader.output, reader.job)
    if after is not None and note is not None and after < (version := warehouse.version(reader.source)):
        annotate(warehouse, reader.output, {**note, reader.key: version})


def annotate(warehouse: Warehouse, table: str, note: dict) -> None:
    """Commit a note in a job's name, without touching a row; ``by`` says who wrote it."""
    rows = constant(warehouse.spark, [], schemas.ddl(table))
    warehouse.append(rows, table, {**note, "by": MAINTAINER})
