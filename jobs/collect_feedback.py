"""Attribute new actions to the lists that showed the item.

    python jobs/collect_feedback.py --config conf/site.yaml

Reads the change feed of `events` after the version noted in the last commit to `feedback`. The first run, and a run that
finds `events` rebuilt, reads the whole table from the day of the first list on. An action that answers no list is counted but
not stored, and is not checked again: a list made later cannot have shown the item.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from pyspark.sql import DataFrame

from headwater import feedback, job
from headwater.feedback.attribution import filter_actions
from headwater.frames import read_once
from headwater.job import Job
from headwater.tables import Warehouse, failpoint, readers, try_read_changes
from headwater.tables.readers import Progress

app = job.command_line()

WAIT_SECONDS = 60.0
"""How long to wait for published lists to be in `topn_history`."""


@app.command(help=job.help_text(__doc__))
def main(config: job.ConfigFiles = None, set_: job.Overrides = None) -> None:
    job.run("collect_feedback", collect, config, set_)


def collect(j: Job) -> dict[str, int | str]:
    tables = j.warehouse
    tables.read("events")
    with tables.locked("feedback"):
        for table in ("feedback", "topn_history"):
            tables.create(table)
        position, version = tables.position("feedback", j.name), tables.version("events")
        counts: dict[str, int | str] = {"rows_feedback": 0, "rows_unattributed": 0, "events_version": version}
        progress = readers.progress(tables, readers.FEEDBACK)
        if progress.after is not None and progress.after >= version:
            return counts
        if tables.exists("topn") and not history_is_complete(tables):
            reason = "lists in topn are not in topn_history yet; score_topn is still running, or must run again"
            read_until = -1 if progress.after is None else progress.after
            return {**counts, "status": "skipped", "reason": reason, "events_version": read_until}
        with ExitStack() as stack:
            rows, n_answers, n_actions = answers(j, progress, version, stack)
            counts |= {"rows_feedback": n_answers, "rows_unattributed": n_actions - n_answers}
            failpoint("collect_feedback:before_merge")
            note = {"job": j.name, **readers.progress_note(tables, readers.FEEDBACK, version)}
            tables.append_after(position, rows, "feedback", note)
            failpoint("collect_feedback:after_merge")
        return counts


def history_is_complete(tables: Warehouse) -> bool:
    """Whether `topn_history` has all lists of `topn`. A stream copies them while it reads its next events, so wait for it."""
    until = time.monotonic() + WAIT_SECONDS
    while readers.progress(tables, readers.HISTORY).unread:
        if time.monotonic() > until:
            return False
        time.sleep(1)
    return True


def answers(j: Job, progress: Progress, until: int, stack: ExitStack) -> tuple[DataFrame, int, int]:
    """New rows of `feedback`, their number, and the number of actions in the versions `progress.after + 1 … until` of `events`; in
    the whole table on the first run, or if the change feed cannot be read. Only the latter looks through all lists and feedback."""
    rules, history, known = j.config.feedback, j.warehouse.read("topn_history"), j.warehouse.read("feedback")
    if (after := progress.after) is not None:
        feed = try_read_changes(
            lambda: read_once(
                filter_actions(j.warehouse.inserted("events", after, until), rules.rewards), progress.fits_driver, stack
            )
        )
        if feed is not None:
            new = feedback.drop_known(feed[0], feedback.known_in_span(known, feed[0]))
            actions, n_actions = read_once(new, progress.fits_driver, stack)
            found = feedback.new_answers(actions, history, rules, j.now)
            return *read_once(found, progress.fits_driver, stack), n_actions
        j.log.warning("the change feed of events cannot be read; all events are read", after=after, until=until)
    actions = feedback.drop_known(filter_actions(j.warehouse.read("events", until), rules.rewards), known)
    found = feedback.new_answers(feedback.since_first_list(actions, history), history, rules, j.now)
    return *read_once(found, False, stack), actions.count()


if __name__ == "__main__":
    job.start(app)
