"""Update `sequences` with new events: the body of `build_sequences`.

Reads the change feed of `events` after the version noted in the last commit to `sequences`, and touches only users with new
events. All sequences are rebuilt if `sequence.max_length` has changed or `events` was rebuilt.
"""

from __future__ import annotations

from contextlib import ExitStack

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headwater import sequences
from headwater.in_hand import held, read_once
from headwater.job import Job
from headwater.tables import failpoint, readers, still_there


def build(j: Job) -> dict[str, int]:
    tables, length = j.warehouse, j.config.sequence.max_length
    tables.read("events")  # raises TableError if there are none
    items = tables.read("items")
    with tables.locked("sequences"), ExitStack() as stack:
        tables.create("sequences")
        come = readers.progress(tables, readers.SEQUENCES)
        after = come.after if come.said is not None and come.said["max_length"] == length else None
        version = tables.version("events")
        note = {"job": j.name, **readers.noted(tables, readers.SEQUENCES, version), "max_length": length}
        if after is not None and after >= version:
            return {"users_changed": 0, "events_new": 0, "events_version": version}
        found = None if after is None else new_steps(j, items, after, version, come.few, stack)
        rebuild, few = found is None, found is not None and come.few
        if found is None:
            found = read_once(sequences.filter_steps(tables.read("events", version), items), few=False, stack=stack)
        steps, events_new = found
        stored = tables.read("sequences")
        rows = sequences.build(steps, stored.limit(0) if rebuild else stored, length)
        rows = held(rows)[0] if few else rows
        rows = rows.withColumn("updated_at", F.lit(j.now))  # only after they are collected, see publish.stamped
        failpoint("build_sequences:before_merge")
        if rebuild:
            tables.overwrite(rows, "sequences", note)
            changed = tables.read("sequences").count()
        else:
            parts = (rows.where("stands"), rows.where("NOT stands"))
            counts = tables.upsert(*parts, "sequences", note) if few else tables.merge(rows, "sequences", note)
            changed = counts["inserted"] + counts["updated"]
        failpoint("build_sequences:after_merge")
        return {"users_changed": changed, "events_new": events_new, "events_version": version}


def new_steps(
    j: Job, items: DataFrame, after: int, until: int, few: bool, stack: ExitStack
) -> tuple[DataFrame, int] | None:
    """The steps of events inserted in the versions ``after + 1 … until``, and their number; None if the change feed cannot be
    read."""
    steps = sequences.filter_steps(j.warehouse.inserted("events", after, until), items)
    found = still_there(lambda: read_once(steps, few, stack))
    if found is None:
        j.log.warning("the change feed of events cannot be read; all events are read", after=after, until=until)
    return found
