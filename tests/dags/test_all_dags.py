"""Every DAG imports lightly, names jobs and flags that exist, and can be retried safely."""

import ast
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "airflow_dags"
NAMES = {"headwater_nightly", "headwater_nearline", "headwater_feedback", "headwater_maintenance"}
FILES = sorted(path for path in DAGS.glob("*.py"))

LIST_FLAGS = """
import importlib.util, json, pathlib, sys
import typer
flags = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.py")):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    command = typer.main.get_command(module.app)
    flags[path.stem] = [word for option in command.params for word in (*option.opts, *option.secondary_opts)]
print(json.dumps(flags))
"""


@pytest.fixture(scope="module")
def bag(airflow_home):
    from airflow.dag_processing.dagbag import BundleDagBag

    return BundleDagBag(dag_folder=str(DAGS), bundle_path=DAGS, bundle_name="headwater", safe_mode=True)


@pytest.fixture(scope="module")
def tasks(bag):
    return [task for dag in bag.dags.values() for task in dag.tasks]


@pytest.fixture(scope="module")
def job_flags():
    ended = subprocess.run(
        [sys.executable, "-c", LIST_FLAGS, str(ROOT / "jobs")], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_every_file_imports_and_all_four_dags_exist(bag):
    assert bag.import_errors == {}
    assert set(bag.dags) == NAMES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dag_file_imports_airflow_and_the_standard_library_only(file):
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    assert imported - set(sys.stdlib_module_names) <= {"airflow", "_jobs"}


def test_every_dag_has_a_runbook_and_runs_once_at_a_time(bag):
    for dag in bag.dags.values():
        assert "fails" in (dag.doc_md or ""), dag.dag_id
        assert (dag.max_active_runs, dag.catchup) == (1, False), dag.dag_id
        assert "headwater" in dag.tags


def test_every_task_of_a_dag_is_named_in_its_runbook(bag):
    for dag in bag.dags.values():
        for task in dag.tasks:
            assert task.task_id in dag.doc_md, f"{dag.dag_id}: {task.task_id}"


def test_every_task_retries_with_growing_delays_and_has_a_timeout(tasks):
    for task in tasks:
        assert task.retries >= 2, task.task_id
        assert task.retry_exponential_backoff, task.task_id
        assert timedelta(seconds=10) <= task.retry_delay < task.max_retry_delay <= timedelta(hours=1), task.task_id
        assert timedelta(0) < task.execution_timeout <= timedelta(hours=6), task.task_id


def test_every_task_runs_in_a_one_slot_pool_of_the_pool_file(tasks):
    pools = json.loads((DAGS / "pools.json").read_text())
    assert {task.pool for task in tasks} == set(pools)
    assert all(pool["slots"] == 1 and pool["description"] for pool in pools.values())


def test_a_job_has_the_same_pool_in_every_dag(tasks):
    pools = {}
    for task in tasks:
        assert pools.setdefault(Path(task.application).stem, task.pool) == task.pool


def test_every_task_starts_a_job_that_exists_with_flags_that_exist(tasks, job_flags):
    for task in tasks:
        job = Path(task.application)
        assert job.parent == ROOT / "jobs", job
        assert job.is_file(), job
        flags = [word for word in task.application_args if word.startswith("--")]
        assert "--config" in flags
        assert set(flags) <= set(job_flags[job.stem]), f"{job.stem} {flags}"


def test_arguments_are_plain_strings_and_no_dag_takes_parameters(bag, tasks):
    assert all(not dag.params for dag in bag.dags.values())
    for task in tasks:
        assert all(isinstance(word, str) for word in task.application_args)
        assert not any("params" in word or "dag_run" in word for word in task.application_args)


def test_a_failed_ingest_does_not_stop_nearline_lists_but_stops_training(bag):
    building = {dag.dag_id: dag.task_dict.get("build_sequences") for dag in bag.dags.values()}
    waits = {dag_id: task.trigger_rule for dag_id, task in building.items() if task is not None}
    assert waits == {"headwater_nearline": "all_done", "headwater_nightly": "all_success"}


def test_the_feedback_dag_does_not_trigger_itself(bag):
    dag = bag.dags["headwater_feedback"]
    starts = {asset.name for asset in dag.timetable.asset_condition.objects}
    assert starts == {"headwater_sequences"}
    assert not starts & {asset.name for task in dag.tasks for asset in task.outlets}


def test_a_build_that_changed_nothing_stops_the_run_unless_a_try_before_may_have_changed_something(bag):
    skip_if = bag.dags["headwater_nearline"].get_task("build_sequences").skip_if
    assert skip_if({"users_changed": 0}, 1)
    assert not skip_if({"users_changed": 3}, 1)
    assert not skip_if({"users_changed": 0}, 2)


def test_every_task_that_writes_a_table_updates_its_asset(tasks):
    expected = {
        "ingest_events": "headwater_events", "build_sequences": "headwater_sequences", "score_topn": "headwater_topn",
        "promote_model": "headwater_champion", "collect_feedback": "headwater_feedback",
    }  # fmt: skip
    for task in tasks:
        assert [asset.name for asset in task.outlets] == [
            name for job, name in expected.items() if job == Path(task.application).stem
        ]
