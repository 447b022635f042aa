"""What `topn` has published, appended to `topn_history`: by the next run, where one was killed before it came to that."""

from __future__ import annotations

from pyspark.sql import functions as F

from headwater import schemas
from headwater.job import Job
from headwater.scoring import publish
from headwater.tables import failpoint, readers


def publish_history(j: Job) -> None:
    """Append to `topn_history` what `topn` has published since the last time; where that is not known, what of all that it
    can tell of is not there yet."""
    tables = j.warehouse
    with tables.locked("topn_history"):
        tables.create("topn_history")
        until = tables.version("topn")
        after = readers.progress(tables, readers.HISTORY).after
        if (after or 0) < until:
            feed = tables.changes("topn", after or 0, until).where(F.col("_change_type").isin(*publish.PUBLISHED))
            if after is None:
                key = list(schemas.KEYS["topn_history"])
                feed = feed.join(tables.read("topn_history").select(key), key, how="left_anti")
            tables.append(feed, "topn_history", {"job": j.name, "topn_version": until})
            failpoint("score_topn:after_history")
