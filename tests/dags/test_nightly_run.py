"""The nightly DAG really runs: Airflow starts every job by spark-submit on a small warehouse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import shop

from headwater.spark import java_options

pytestmark = pytest.mark.fault  # whole jobs, each in its own process

ROOT = Path(__file__).resolve().parents[2]

# In a separate process: the DAG file reads HEADWATER_CONFIG when it is imported, and Airflow takes over the logging.
RUN_DAG = """
import json, pathlib, sys
from airflow.dag_processing.dagbag import BundleDagBag
folder = pathlib.Path(sys.argv[1])
bag = BundleDagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="headwater")
run = bag.dags["headwater_nightly"].test()
print(json.dumps({task.task_id: str(task.state) for task in run.get_task_instances()}))
"""

TASKS = (
    "ingest_events", "build_sequences", "train_model", "evaluate_model", "promote_model", "score_topn", "build_report"
)  # fmt: skip


@pytest.mark.timeout(900)
def test_the_nightly_dag_runs_from_landing_files_to_lists_and_report(airflow_home, site, spark):
    store = site(shop.CONFIG)
    shop.write_first_day(store.landing)
    report = store.root / "report.html"
    (store.root / "spark-defaults.conf").write_text(f"spark.driver.defaultJavaOptions {java_options()}\n")
    ended = subprocess.run(
        [sys.executable, "-c", RUN_DAG, str(ROOT / "airflow_dags")],
        capture_output=True, text=True, errors="replace", cwd=store.root, timeout=850, check=False,
        env={**os.environ, "HEADWATER_CONFIG": str(store.config), "HEADWATER_REPORT": str(report),
             "SPARK_CONF_DIR": str(store.root)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    states = json.loads(ended.stdout.strip().splitlines()[-1])
    assert states == dict.fromkeys(TASKS, "success"), ended.stdout[-6000:]
    assert report.stat().st_size > 1_000
    users = {row[0] for row in store.rows(spark, "topn", "user_id")}
    assert users == {f"u{n}" for n in range(60)}
