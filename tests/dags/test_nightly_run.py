"""The nightly DAG really runs: Airflow starts every job by spark-submit on a small warehouse."""

import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own: the DAG file reads HEADWATER_CONFIG when it is imported, and Airflow takes over the logging.
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


def write_small_shop(landing: Path) -> None:
    """40 users walk along 25 items, one step an hour; who has seen item n mostly goes on to n + 1."""
    draw = random.Random(4)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
    rows = []
    for user in range(40):
        item = draw.randrange(25)
        for step in range(12):
            item = (item + 1) % 25 if draw.random() < 0.8 else draw.randrange(25)
            at = start + timedelta(hours=5 * step, minutes=user)
            rows.append({"user_id": f"u{user}", "item_id": f"i{item}", "event_type": "view", "timestamp": at.isoformat()})
    (landing / "api").mkdir(parents=True)
    (landing / "api" / "day.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.timeout(900)
def test_the_nightly_dag_runs_from_landing_files_to_lists_and_report(airflow_home, site, spark):
    shop = site(
        {
            "model": {"dim": 16, "layers": 1},
            "train": {"epochs": 2, "processes": 1},
            "evaluate": {"k": [5, 10]},
            "gate": {"min_users": 5},
            "spark": {"spark.sql.shuffle.partitions": "2"},
        }
    )
    write_small_shop(shop.landing)
    environment = {**os.environ, "HEADWATER_CONFIG": str(shop.config), "HEADWATER_REPORT": str(shop.root / "report.html")}
    ended = subprocess.run(
        [sys.executable, "-c", RUN_DAG, str(ROOT / "airflow_dags")],
        capture_output=True, text=True, errors="replace", env=environment, cwd=shop.root, timeout=850, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    states = json.loads(ended.stdout.strip().splitlines()[-1])
    assert states == dict.fromkeys(TASKS, "success"), ended.stdout[-6000:]
    assert (shop.root / "report.html").stat().st_size > 1_000
    users = {row[0] for row in shop.rows(spark, "topn", "user_id")}
    assert users == {f"u{n}" for n in range(40)}
