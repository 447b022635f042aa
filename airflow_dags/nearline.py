"""### Headwater, every five minutes: new events only

Ingests the files that have landed, updates the sequences of their users, and rewrites these users' lists with the
champion. If nothing is new, each job ends after a look. A run that takes longer than five minutes delays the next one;
two never run at once, and the next one processes everything that has gathered.

What to do when a task fails:

- `ingest_events`: as in `headwater_nightly`, but the lists do not wait: what was ingested is built and scored all the same,
  also beside a file that does not fit. Such a run ends as a success, so watch this task.
- `build_sequences`: it is skipped where no user has a new event. Clear it, or wait: the next run resumes after the last commit.
- `score_topn`: before the first night there is no champion, and the job says so. Later, clear it or wait: the lists
  stay as they were, and the next run scores all users that changed since.

It shares one pool per table with the nightly run, so the two take turns. To catch up after a long stop, do nothing: one
run processes everything. To stop for a while, pause the DAG.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import CronTriggerTimetable, chain, dag

from _jobs import DEFAULTS, EVENTS, SEQUENCES, TOPN, is_unchanged, job_task


@dag(
    dag_id="headwater_nearline",
    schedule=CronTriggerTimetable("*/5 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # the next run repairs what this one could not, so it gives up early
    default_args={
        **DEFAULTS,
        "retries": 2,
        "retry_delay": timedelta(seconds=20),
        "max_retry_delay": timedelta(minutes=2),
    },
    doc_md=__doc__,
    tags=["headwater", "nearline"],
)
def nearline() -> None:
    chain(
        job_task("ingest_events", minutes=30, outlets=[EVENTS]),
        job_task("build_sequences", minutes=30, outlets=[SEQUENCES], trigger_rule="all_done", skip_if=is_unchanged),
        # lists change without new events too: an item may have become unavailable
        job_task("score_topn", "--mode", "nearline", minutes=30, outlets=[TOPN], trigger_rule="none_failed"),
    )


nearline()
