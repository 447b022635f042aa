"""Update `sequences` with new events: the body of `build_sequences`.

Reads the change feed of `events` after the version noted in the last commit to `sequences`, and touches only users with new
events. All sequences are rebuilt if `sequence.max_length` has changed or `events` was rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headwater import sequences
from headwater.frames import collected, read_once
from headwater.job import Job
from headwater.tables import Position, failpoint, readers, try_read_changes


class Update:
    """New rows of `sequences`, computed but not committed yet. ``rows``: those of ``users`` users, collected on the driver; None if
    they are too many, or if nothing is new."""

    def __init__(self, rows: DataFrame | None, users: int, write: Callable[[], dict[str, int]]) -> None:
        self.rows, self.users = rows, users
        self._write = write
        self._counts: dict[str, int] | None = None

    def commit(self) -> dict[str, int]:
        """Commit the rows, once; returns the counts of the closing line and ``sequences_version``, the version that has them."""
        if self._counts is None:
            self._counts = self._write()
        return self._counts


def build(j: Job) -> dict[str, int]:
    with update(j) as ready:
        return ready.commit()


@contextmanager
def update(j: Job) -> Iterator[Update]:
    """The update that new events call for, while the lock of `sequences` is held. Leaving the context does not commit it."""
    tables, length = j.warehouse, j.config.sequence.max_length
    tables.read("events")  # raises TableError if there are none
    items = tables.read("items")
    with tables.locked("sequences"), ExitStack() as stack:
        tables.create("sequences")
        version = tables.version("events")  # first: the progress must count all commits up to it
        position, progress = tables.position("sequences", j.name), readers.progress(tables, readers.SEQUENCES)
        after = progress.after if progress.note is not None and progress.note["max_length"] == length else None
        counts = {"users_changed": 0, "events_new": 0, "events_version": version}
        if after is not None and after >= version:
            yield Update(None, 0, lambda: {**counts, "sequences_version": tables.version("sequences")})
            return
        note = {"job": j.name, **readers.progress_note(tables, readers.SEQUENCES, version), "max_length": length}
        found = None if after is None else new_steps(j, items, after, version, progress.fits_driver, stack)
        rebuild, few = found is None, found is not None and progress.fits_driver
        if found is None:
            found = read_once(sequences.filter_steps(tables.read("events", version), items), collect=False, stack=stack)
        steps, counts["events_new"] = found
        stored = tables.read("sequences")
        rows = sequences.build(steps, stored.limit(0) if rebuild else stored, length)
        rows, users = collected(rows) if few else (rows, 0)

        def write() -> dict[str, int]:
            failpoint("build_sequences:before_merge")
            changed = commit(j, position, rows, note, rebuild, few)
            failpoint("build_sequences:after_merge")
            return {**counts, "users_changed": changed, "sequences_version": tables.version("sequences")}

        yield Update(rows if few else None, users, write)


def commit(j: Job, position: Position, rows: DataFrame, note: dict[str, Any], rebuild: bool, few: bool) -> int:
    """Replace all sequences, or only those of the users in ``rows``; returns how many changed."""
    tables = j.warehouse
    rows = rows.withColumn("updated_at", F.lit(j.now))  # only after they are collected, see publish.stamped
    if rebuild:
        tables.overwrite(rows, "sequences", note)
        return tables.read("sequences").count()
    parts = (rows.where("has_row"), rows.where("NOT has_row"))
    counts = tables.upsert(position, *parts, "sequences", note) if few else tables.merge(rows, "sequences", note)
    return counts["inserted"] + counts["updated"]


def new_steps(
    j: Job, items: DataFrame, after: int, until: int, few: bool, stack: ExitStack
) -> tuple[DataFrame, int] | None:
    """The steps of events inserted in the versions ``after + 1 … until``, and their number; None if the change feed cannot be
    read."""
    found = try_read_changes(
        lambda: read_once(sequences.filter_steps(j.warehouse.inserted("events", after, until), items), few, stack)
    )
    if found is None:
        j.log.warning("the change feed of events cannot be read; all events are read", after=after, until=until)
    return found
