"""What `topn` has published, appended to `topn_history`: by the next run, where one was killed before it came to that."""

from __future__ import annotations

from pyspark.sql import functions as F

from headwater.job import Job
from headwater.scoring import publish
from headwater.tables import failpoint, readers


def publish_history(j: Job) -> None:
    """Append to `topn_history` what `topn` has published since the last time."""
    tables = j.warehouse
    with tables.locked("topn_history"):
        tables.create("topn_history")
        until = tables.version("topn")
        after = readers.came_to(tables, readers.HISTORY) or 0
        if after < until:
            feed = tables.changes("topn", after, until).where(F.col("_change_type").isin(*publish.PUBLISHED))
            tables.append(feed, "topn_history", {"job": j.name, "topn_version": until})
            failpoint("score_topn:after_history")
