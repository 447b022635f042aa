"""The whole loop on two executors in separate processes, with the library shipped as a zip: nothing relies on one process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import shop

from headwater.spark import java_options

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def test_the_loop_runs_on_executors_that_get_the_library_as_a_zip(site, spark, tmp_path):
    store = site({**shop.CONFIG, "train": {"epochs": 2, "processes": 2, "local_mode": False}})
    shop.write_first_day(store.landing)
    jobs = [
        ("ingest_events",), ("build_sequences",), ("train_model",), ("evaluate_model",), ("score_topn",),
        ("act",), ("ingest_events",), ("build_sequences",), ("score_topn", "--mode", "nearline"), ("collect_feedback",),
        ("finetune_model",), ("promote_model",), ("recommend", "--user", "u1", "--json"),
        ("build_report", "--output", str(tmp_path / "report.html")),
    ]  # fmt: skip
    calls = [[str(ROOT / f"jobs/{job}.py"), "--config", str(store.config), *flags] for job, *flags in jobs]
    act = [str(ROOT / "tests/jobs/act_on_lists.py"), str(store.warehouse), str(store.landing / "api/liked.json")]
    calls[jobs.index(("act",))] = act
    *closings, where = submit_jobs(
        store, calls, shutil.make_archive(str(tmp_path / "zip"), "zip", ROOT / "lib", "headwater")
    )
    assert all(".zip/headwater/" in file for file in where["executors_import"]), where["executors_import"]
    said = {closing["job"]: closing for closing in reversed(closings)}
    again = {closing["job"]: closing for closing in closings}
    assert {key: said["ingest_events"][key] for key in shop.FIRST_DAY} == shop.FIRST_DAY
    assert said["score_topn"]["users_scored"] == again["score_topn"]["users_scored"] == 60
    assert again["score_topn"]["mode"] == "nearline"
    assert said["collect_feedback"]["rows_feedback"] == 2 * 60
    assert said["finetune_model"]["model_version"] == 2
    assert len(said["recommend"]["items"]) == 5
    assert (tmp_path / "report.html").stat().st_size > 5_000


def submit_jobs(store, calls, archive):
    """Run jobs one after the other by spark-submit; returns the JSON lines that they print."""
    command = [
        str(BIN / "spark-submit"), "--master", "local-cluster[2,1,1024]", "--py-files", archive, "--driver-memory", "1g",
        "--conf", "spark.ui.enabled=false", "--driver-java-options", java_options(),
        "--conf", f"spark.executor.extraJavaOptions={java_options()}",
        str(ROOT / "tests/jobs/submitted_loop.py"), json.dumps(calls),
    ]  # fmt: skip
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**inherited, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    ended = subprocess.run(
        command, capture_output=True, text=True, errors="replace", cwd=store.root, env=environment, timeout=900,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    found = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return [one for one in found if "level" not in one]  # spark-submit also puts log lines on standard output
