"""What all DAGs share: where Headwater is installed, the tables as Assets, and one operator that starts one job.

Three environment variables of the scheduler and the workers say where things are:

    HEADWATER_HOME     folder with ``jobs/``; default: the folder above this one
    HEADWATER_CONFIG   the site's config file, several separated by ``:``; default: ``conf/site.yaml`` in that folder
    HEADWATER_REPORT   the report page; default: ``report.html`` in that folder

Jobs use the Spark connection ``spark_default``. Every job has a pool, named after its main table, and the pool has one slot:
``airflow pools import airflow_dags/pools.json`` creates the pools, once. On a local disk the jobs also lock their tables, so
a missing pool costs waiting time, never data.

Retries are safe: a job that was killed at any point and runs again leaves the tables as one clean run does. A wrong flag,
config or input location (exit code 2) stays wrong, so it is not retried.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

HOME = Path(os.environ.get("HEADWATER_HOME") or Path(__file__).resolve().parent.parent)
CONFIG = [file for file in os.environ.get("HEADWATER_CONFIG", "").split(":") if file] or [f"{HOME}/conf/site.yaml"]
REPORT = os.environ.get("HEADWATER_REPORT") or f"{HOME}/report.html"

EVENTS = Asset("headwater_events", uri="headwater://warehouse/events")
SEQUENCES = Asset("headwater_sequences", uri="headwater://warehouse/sequences")
CHAMPION = Asset("headwater_champion", uri="headwater://registry/champion")
TOPN = Asset("headwater_topn", uri="headwater://warehouse/topn")
FEEDBACK = Asset("headwater_feedback", uri="headwater://warehouse/feedback")

TRAINED = "{{ ti.xcom_pull(task_ids='train_model')['model_version'] }}"
"""The version that this run trained, from the job's closing line: the challenger may have changed since."""

FINETUNED = "{{ ti.xcom_pull(task_ids='finetune_model')['model_version'] }}"

POOL_OF = {
    "ingest_events": "headwater_events",
    "build_sequences": "headwater_sequences",
    "train_model": "headwater_models",
    "finetune_model": "headwater_models",
    "promote_model": "headwater_models",
    "evaluate_model": "headwater_metrics",
    "score_topn": "headwater_topn",
    "collect_feedback": "headwater_feedback",
    "build_report": "headwater_report",
    "maintain_tables": "headwater_maintenance",
}

DEFAULTS = {
    "owner": "headwater",
    "retries": 3,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=20),
    "depends_on_past": False,
}


class JobOperator(SparkSubmitOperator):
    """Submits one job; its closing line is the task's result. ``"status": "skipped"`` skips what follows, and so does a
    closing line of which ``skip_if``, given also the number of the try, says so."""

    _closing: dict[str, Any] | None = None

    def __init__(self, *, skip_if: Callable[[dict[str, Any], int], bool] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.skip_if = skip_if

    def _get_hook(self) -> SparkSubmitHook:
        hook = super()._get_hook()
        process = hook._process_spark_submit_log
        hook._process_spark_submit_log = lambda itr: process(self._record_closing_line(itr))  # type: ignore[method-assign]
        return hook

    def _record_closing_line(self, lines: Iterator[str]) -> Iterator[str]:
        """The same lines; the last that is a job's closing line is kept."""
        for line in lines:
            if line.startswith('{"job":'):
                with suppress(ValueError):
                    entry = json.loads(line)
                    self._closing = entry if "status" in entry else self._closing
            yield line

    def execute(self, context: Any) -> dict[str, Any]:  # type: ignore[override]
        self._closing = None
        try:
            super().execute(context)
        except Exception as error:
            process = getattr(self._hook, "_submit_sp", None)
            if process is not None and process.returncode == 2:
                line = f"{self.task_id}: a flag, the config or an input location is wrong; its log names it"
                raise AirflowFailException(line) from error
            raise
        closing: dict[str, Any] = self._closing or {}
        if closing.get("status") == "skipped":
            raise AirflowSkipException(str(closing.get("reason", f"{self.task_id} had too little to do")))
        if self.skip_if is not None and self.skip_if(closing, context["ti"].try_number):
            raise AirflowSkipException(str(closing.get("reason", "the later tasks have nothing to do")))
        return closing


def is_refused(closing: dict[str, Any], tries: int) -> bool:
    """Whether the gate kept the champion. A repeated run that finds its own promotion done is no refusal."""
    return str(closing.get("reason", "")).startswith("refused")


def is_unchanged(closing: dict[str, Any], tries: int) -> bool:
    """Whether no user's sequence changed, so that nothing that waits for `sequences` needs to run. After a first try that died
    nobody knows: its changes may be committed."""
    return tries == 1 and not closing.get("users_changed")


def job_task(name: str, *args: str, minutes: int, outlets: Iterable[Asset] = (), **kwargs: Any) -> JobOperator:
    """A task that runs ``jobs/<name>.py`` with the site's config and ``args``, for at most ``minutes``."""
    config = [word for file in CONFIG for word in ("--config", file)]
    return JobOperator(
        task_id=kwargs.pop("task_id", name),
        name=f"headwater:{name}",
        application=f"{HOME}/jobs/{name}.py",
        application_args=[*config, *args],
        conn_id="spark_default",
        pool=POOL_OF[name],
        outlets=list(outlets),
        execution_timeout=timedelta(minutes=minutes),
        do_xcom_push=True,
        **kwargs,
    )
