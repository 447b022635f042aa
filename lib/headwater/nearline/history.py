"""Append the lists published in `topn` to `topn_history`. If a run is killed before this step, the next run does it."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headwater import schemas
from headwater.job import Job
from headwater.scoring import publish
from headwater.tables import Position, Warehouse, failpoint, readers, try_read_changes


def publish_history(j: Job) -> None:
    """Append to `topn_history` the rows published in `topn` since the last run; if the last position is unknown, all published
    rows in its change feed, or in the table itself, that are missing from `topn_history`."""
    tables = j.warehouse
    with tables.locked("topn_history"):
        tables.create("topn_history")
        position, until = tables.position("topn_history", j.name), tables.version("topn")
        after = readers.progress(tables, readers.HISTORY).after
        if (after or 0) >= until:
            return
        key = list(schemas.KEYS["topn_history"])
        known = tables.read("topn_history").select(key)
        note = {"job": j.name, **readers.progress_note(tables, readers.HISTORY, until)}

        def published() -> DataFrame:
            feed = tables.changes("topn", after or 0, until).where(F.col("_change_type").isin(*publish.PUBLISHED))
            return feed if after is not None else feed.join(known, key, how="left_anti")

        if try_read_changes(lambda: append(tables, position, published(), note)) is None:
            j.log.warning(
                "the change feed of topn cannot be read; the current rows of topn are used", after=after, until=until
            )
            append(tables, position, tables.read("topn", until).join(known, key, how="left_anti"), note)
        failpoint("score_topn:after_history")


def append(tables: Warehouse, position: Position, rows: DataFrame, note: dict[str, Any]) -> bool:
    tables.append_after(position, rows, "topn_history", note)
    return True
