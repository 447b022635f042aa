"""### Headwater, every night: train, promote, rescore

Ingests the day's files, updates sequences, trains a challenger on all of them, measures it, lets the gate decide, and
writes every user's Top-N list with the champion. Runs at 02:00 UTC; while a run is going no second one starts.

What to do when a task fails:

- `ingest_events`: the last line of its log names the file or key. A broken file is quarantined and is no failure; a
  missing landing folder or a wrong config is one, and is not retried. Fix it and clear the task: no file is ingested twice.
  Where the line ends with "all other files were ingested", one file does not fit its source: the night can go on without
  it, if you mark the task as a success.
- `build_sequences`: clear it; it resumes after its last commit.
- `train_model`: a retry continues from the last checkpoint (`--resume`), on the events of the first attempt. If all retries
  fail, the champion stays and the night ends without a full rescore; check memory and `train.processes`.
- `evaluate_model`, `promote_model`: the champion stays in place. A refusal by the gate is not a failure: its reason is
  in the task's log and in the table `promotions`.
- `score_topn`: the old lists stay, and nearline continues with the champion. Clear it.
- `build_report`: nothing depends on it.

To undo a promotion: `spark-submit jobs/promote_model.py --config … --rollback`, then clear `score_topn`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import CronTriggerTimetable, chain, dag

from _jobs import CHAMPION, DEFAULTS, EVENTS, REPORT, SEQUENCES, TOPN, TRAINED, job_task


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
        job_task("ingest_events", minutes=120, outlets=[EVENTS]),
        job_task("build_sequences", minutes=120, outlets=[SEQUENCES]),
        job_task("train_model", "--resume", minutes=360),
        job_task("evaluate_model", "--version", TRAINED, minutes=60),
        job_task("promote_model", "--version", TRAINED, minutes=30, outlets=[CHAMPION]),
        job_task("score_topn", "--mode", "full", minutes=180, outlets=[TOPN]),
        job_task("build_report", "--output", REPORT, minutes=30),
    )


nightly()
