"""Attribute new actions to the lists that showed the item.

    python jobs/collect_feedback.py --config conf/site.yaml

Reads the change feed of `events` after the version noted in the last commit to `feedback`. The first run, and a run that
finds `events` rebuilt, reads the whole table from the day of the first list on. An action that answers no list is counted but
not stored, and is not checked again: a list made later cannot have shown the item.
"""

from __future__ import annotations

from pyspark.sql import DataFrame

from headwater import feedback, job
from headwater.feedback.attribution import filter_actions
from headwater.job import Job
from headwater.tables import failpoint, readers, still_there

app = job.command_line()


@app.command(help=job.help_text(__doc__))
def main(config: job.ConfigFiles = None, set_: job.Overrides = None) -> None:
    job.run("collect_feedback", collect, config, set_)


def collect(j: Job) -> dict[str, int | str]:
    tables, rules = j.warehouse, j.config.feedback
    tables.read("events")
    with tables.locked("feedback"):
        for table in ("feedback", "topn_history"):
            tables.create(table)
        version = tables.version("events")
        counts: dict[str, int | str] = {"rows_feedback": 0, "rows_unattributed": 0, "events_version": version}
        read = readers.progress(tables, readers.FEEDBACK).after
        if read is not None and read >= version:
            return counts
        if tables.exists("topn") and readers.progress(tables, readers.HISTORY).unread:
            reason = "lists in topn are not in topn_history yet; score_topn is still running, or must run again"
            return {**counts, "status": "skipped", "reason": reason, "events_version": -1 if read is None else read}
        actions = filter_actions(new_events(j, read, version), rules.rewards)
        new = feedback.filter_unknown(actions, tables.read("feedback"))
        rows = feedback.new_answers(new, tables.read("topn_history"), rules, j.now).persist()
        try:
            counts["rows_feedback"] = rows.count()
            counts["rows_unattributed"] = new.count() - rows.count()
            failpoint("collect_feedback:before_merge")
            tables.append(rows, "feedback", {"job": j.name, **readers.noted(tables, readers.FEEDBACK, version)})
            failpoint("collect_feedback:after_merge")
        finally:
            rows.unpersist()
        return counts


def new_events(j: Job, after: int | None, until: int) -> DataFrame:
    """Events of the versions ``after + 1 … until``; all events on the first run, or if the change feed was vacuumed."""
    if after is not None:
        new = j.warehouse.inserted("events", after, until)
        if still_there(new.count) is not None:
            return new
        j.log.warning("the change feed of events was vacuumed; all events are read", after=after, until=until)
    return j.warehouse.read("events", until)


if __name__ == "__main__":
    job.start(app)
