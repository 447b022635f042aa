"""New events into `sequences`: the body of `build_sequences`.

Reads the change feed of `events` from the version that the last commit to `sequences` notes; touches only users with
new events. A changed `sequence.max_length` rebuilds all of them, and so do events that were built anew.
"""

from __future__ import annotations

from pyspark.sql import functions as F

from headwater import sequences
from headwater.in_hand import FEW, held
from headwater.job import Job
from headwater.tables import failpoint, readers


def build(j: Job) -> dict[str, int]:
    tables, length = j.warehouse, j.config.sequence.max_length
    events = tables.read("events")
    items = tables.read("items")
    with tables.locked("sequences"):
        tables.create("sequences")
        come = readers.progress(tables, readers.SEQUENCES)
        after = come.after if come.said is not None and come.said["max_length"] == length else None
        version = tables.version("events")
        note = {"job": j.name, "events_version": version, "max_length": length}
        if after is not None and after >= version:
            return {"users_changed": 0, "events_new": 0, "events_version": version}
        rebuild = after is None
        if after is None:
            new = tables.read("events", version)
        else:
            feed = tables.changes("events", after, version)
            new = feed.where(F.col("_change_type") == "insert").select(events.columns)
        steps = sequences.filter_steps(new, items)
        few = not rebuild and sum(commit.rows for commit in come.unread) <= FEW
        if few:
            steps, events_new = held(steps)
        else:
            events_new = steps.persist().count()  # first, so that Spark knows how few there are when it plans the rest
        stored = tables.read("sequences")
        rows = sequences.build(steps, stored.limit(0) if rebuild else stored, length)
        rows = held(rows)[0] if few else rows
        rows = rows.withColumn("updated_at", F.lit(j.now))  # not before they are held, see publish.stamped
        failpoint("build_sequences:before_merge")
        if rebuild:
            tables.overwrite(rows, "sequences", note)
            changed = tables.read("sequences").count()
        else:
            parts = (rows.where("stands"), rows.where("NOT stands"))
            counts = tables.upsert(*parts, "sequences", note) if few else tables.merge(rows, "sequences", note)
            changed = counts["inserted"] + counts["updated"]
        failpoint("build_sequences:after_merge")
        counted = {"users_changed": changed, "events_new": events_new, "events_version": version}
        steps.unpersist()
        return counted
