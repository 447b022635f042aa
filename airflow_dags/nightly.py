"""### Headwater, every night: everything anew

Takes the day's files, brings sequences up to date, trains a challenger on all of them, measures it, lets the gate
decide, and writes every user's Top-N list with the champion. At 02:00 UTC; a run that is still going is not doubled.

What to do when a task fails:

- `ingest_events`: the last line of its log names the file or key. A broken file is quarantined and is no error; a
  missing landing folder or a wrong config is one, and is not retried. Mend it and clear the task: files are taken once.
- `build_sequences`: clear it; it starts where its last commit ended.
- `train_model`: the next try goes on from the last checkpoint (`--resume`). When all tries fail the champion stays and
  lists grow old by a day; look at memory and at `train.processes`.
- `evaluate_model`, `promote_model`: the champion stays in place. A gate that refuses is no failure: its reason stands
  in the task's log and in the table `promotions`.
- `score_topn`: the old lists stay as they are and nearline goes on with the champion. Clear it.
- `build_report`: nothing depends on it.

To undo a promotion: `spark-submit jobs/promote_model.py --config … --rollback`, then clear `score_topn`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import CronTriggerTimetable, chain, dag

from _jobs import CHAMPION, DEFAULTS, EVENTS, REPORT, SEQUENCES, TOPN, TRAINED, start_job


@dag(
    dag_id="headwater_nightly",
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    doc_md=__doc__,
    tags=["headwater", "batch"],
)
def nightly() -> None:
    chain(
        start_job("ingest_events", minutes=120, outlets=[EVENTS]),
        start_job("build_sequences", minutes=120, outlets=[SEQUENCES]),
        start_job("train_model", "--resume", minutes=360),
        start_job("evaluate_model", "--version", TRAINED, minutes=60),
        start_job("promote_model", "--version", TRAINED, minutes=30, outlets=[CHAMPION]),
        start_job("score_topn", "--mode", "full", minutes=180, outlets=[TOPN]),
        start_job("build_report", "--output", REPORT, minutes=30),
    )


nightly()
