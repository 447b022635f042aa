"""### Headwater, every Sunday: maintain the tables

Deletes rows older than `maintain.keep_days` (by default none), packs small files into large ones and removes files that
no version younger than `maintain.retention_hours` needs. Runs on Sundays at 05:00 UTC, after the nightly run. It locks
one table after another, so nearline waits for minutes, not hours. Off a local disk there are no locks: pause the other
DAGs while it runs (see `docs/runbook.md`).

When it fails, nothing is lost, and the tables are readable at every instant: clear `maintain_tables`. Reads of old
versions whose files were removed fail with the version's number; raise `maintain.retention_hours` if people need them.

Removing a user's data is not scheduled. Run it by hand, so that the identifier is stored in no scheduler's database:
`spark-submit jobs/maintain_tables.py --config … --forget USER`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import CronTriggerTimetable, dag

from _jobs import DEFAULTS, job_task


@dag(
    dag_id="headwater_maintenance",
    schedule=CronTriggerTimetable("0 5 * * 0", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    doc_md=__doc__,
    tags=["headwater", "maintenance"],
)
def maintenance() -> None:
    job_task("maintain_tables", minutes=240)


maintenance()
