"""### Headwater, every Sunday: keep the tables fit

Rewrites small files into large ones and removes files that no version younger than `maintain.retention_hours` needs.
On Sundays at 05:00 UTC, when the night is over. It takes the tables' locks one after another, so nearline waits for
minutes, not hours.

When it fails: nothing is lost, tables are readable at every instant; clear it. Reads of old versions that were removed
fail with the version's number; raise `maintain.retention_hours` if people need them.

A person who asks to be forgotten is no matter of a timetable. Run it by hand, so that the name stands in no
scheduler's database: `spark-submit jobs/maintain_tables.py --config … --forget USER`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import CronTriggerTimetable, dag

from _jobs import DEFAULTS, start_job


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
    start_job("maintain_tables", minutes=240)


maintenance()
