"""The whole loop on two executors with processes of their own, the library shipped as a zip: nothing leans on one process."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import shop

from headwater.spark import java_options

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def test_the_loop_runs_on_executors_that_get_the_library_as_a_zip(site, spark, tmp_path):
    store = site({**shop.CONFIG, "train": {"epochs": 2, "processes": 2, "local_mode": False}})
    shop.write_first_day(store.landing)
    archive = shutil.make_archive(str(tmp_path / "shipped"), "zip", ROOT / "lib", "headwater")
    night = [("ingest_events",), ("build_sequences",), ("train_model",), ("evaluate_model",), ("score_topn",)]
    closings = submitted(store, archive, night)
    assert all(".zip/headwater/" in file for file in closings["executors_import"]), closings["executors_import"]
    assert {key: closings["ingest_events"][key] for key in shop.FIRST_DAY} == shop.FIRST_DAY
    assert closings["score_topn"]["users_scored"] == 60

    now = datetime.now(UTC) + timedelta(seconds=1)
    shown = [row for row in store.rows(spark, "topn", "user_id", "item_id", "rank") if row[2] <= 2]
    lines = [shop.api_line(user, item, "click", now) for user, item, _ in shown]
    (store.landing / "api/liked.json").write_text("\n".join(lines) + "\n")
    day = [
        ("ingest_events",), ("build_sequences",), ("score_topn", "--mode", "nearline"), ("collect_feedback",),
        ("finetune_model",), ("promote_model",), ("recommend", "--user", "u1", "--json"),
        ("build_report", "--output", str(store.root / "report.html")),
    ]  # fmt: skip
    closings = submitted(store, archive, day)
    assert closings["score_topn"]["users_scored"] == 60
    assert closings["collect_feedback"]["rows_feedback"] == len(shown)
    assert closings["finetune_model"]["model_version"] == 2
    assert len(closings["recommend"]["items"]) == 5
    assert (store.root / "report.html").stat().st_size > 5_000


def submitted(store, archive, jobs):
    """The closing lines by job, and where the executors imported the library from."""
    calls = [[str(ROOT / f"jobs/{job}.py"), "--config", str(store.config), *flags] for job, *flags in jobs]
    command = [
        str(BIN / "spark-submit"), "--master", "local-cluster[2,1,1024]", "--py-files", archive, "--driver-memory", "1g",
        "--conf", "spark.ui.enabled=false", "--driver-java-options", java_options(),
        "--conf", f"spark.executor.extraJavaOptions={java_options()}",
        str(ROOT / "tests/jobs/submitted_loop.py"), json.dumps(calls),
    ]  # fmt: skip
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**inherited, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    ended = subprocess.run(
        command, capture_output=True, text=True, errors="replace", cwd=store.root, env=environment, timeout=540,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    found = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return {one["job"]: one for one in found if "job" in one} | found[-1]
