"""The demo's driver: a failing job ends the demo with that job's line, Ctrl-C leaves no process, Delta tables can be read."""

import io
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tqdm import tqdm

import processes
import run
import tables
from movielens import DemoError

JOBS = {
    "good": "import json; print('noise'); print(json.dumps({'job': 'good', 'status': 'ok', 'rows_in': 3}))",
    "bad": "import sys; print('log', file=sys.stderr); sys.exit('bad: paths.landing nowhere does not exist')",
    "mute": "pass",
}


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A demo whose jobs are three-line scripts."""
    (tmp_path / "jobs").mkdir()
    for name, text in JOBS.items():
        (tmp_path / "jobs" / f"{name}.py").write_text(text)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "LOG", tmp_path / "jobs.log")
    monkeypatch.setattr(run, "JOB_OUTPUT", tmp_path / "answer.log")
    demo = run.Demo(tqdm(total=3, disable=True))
    yield demo
    demo.stop()


def test_a_step_prints_one_line_with_its_counts_without_a_terminal(demo, capsys):
    answer = demo.run("good", "--mode", "full")
    assert answer == {"job": "good", "status": "ok", "rows_in": 3}
    line = capsys.readouterr().out.strip()
    assert line.startswith("[ 1/26] good")
    assert line.endswith("status ok, rows_in 3")
    assert "$ python jobs/good.py --config conf/demo.yaml --mode full" in run.LOG.read_text()


def test_jobs_share_a_process_and_each_answer_holds_only_its_own_output(demo):
    assert demo.run("good") == demo.run("good")
    assert run.JOB_OUTPUT.read_text().count("noise") == 1
    with pytest.raises(DemoError, match="bad"):
        demo.run("bad")
    assert demo.worker.poll() is None


def test_a_failing_job_ends_the_demo_with_its_own_line(demo):
    with pytest.raises(DemoError, match=r"bad: paths\.landing nowhere does not exist"):
        demo.run("bad")


def test_a_job_without_a_closing_line_is_an_error(demo):
    with pytest.raises(DemoError, match="mute succeeded but printed no closing line"):
        demo.run("mute")


def test_a_failure_is_exit_code_1_and_one_line(monkeypatch, tmp_path, capsys):
    def fail(demo):
        raise DemoError("score_topn: there is no champion")

    monkeypatch.setattr(run, "loop", fail)
    monkeypatch.setattr(run, "OUT", tmp_path / "out")
    monkeypatch.setattr(run, "LANDING", tmp_path / "out" / "landing")
    assert run.main() == 1
    assert capsys.readouterr().err.strip() == "demo: score_topn: there is no champion"


def test_each_demo_begins_with_an_empty_folder(monkeypatch, tmp_path):
    (tmp_path / "out" / "warehouse").mkdir(parents=True)
    monkeypatch.setattr(run, "OUT", tmp_path / "out")
    monkeypatch.setattr(run, "LANDING", tmp_path / "out" / "landing")
    monkeypatch.setattr(run, "loop", lambda demo: None)
    monkeypatch.setattr(run, "summary", lambda demo, total: [])
    assert run.main() == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["landing"]


def test_stopping_a_job_ends_all_its_child_processes_even_in_other_sessions():
    grandchild = (
        "import subprocess, sys, time\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print(other.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", grandchild], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    other = int(child.stdout.readline())
    assert processes.descendants(child.pid) == [child.pid, other]
    assert processes.memory_gib(child.pid) > 0
    processes.stop(child)
    assert child.returncode is not None
    assert has_ended(other)


def has_ended(pid: int) -> bool:
    for _ in range(50):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_ctrl_c_is_one_line_exit_130_and_no_job_left(tmp_path):
    """The demo runs in its own process with one long job, and is interrupted."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "long.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    script = (
        f"import sys; sys.path.insert(0, {str(Path(run.__file__).parent)!r})\n"
        "import run, pathlib\n"
        f"run.ROOT = pathlib.Path({str(tmp_path)!r}); run.OUT = run.ROOT / 'out'\n"
        "run.LANDING, run.LOG, run.JOB_OUTPUT = run.OUT / 'landing', run.OUT / 'jobs.log', run.OUT / 'answer.log'\n"
        "run.loop = lambda demo: demo.run('long')\n"
        "sys.exit(run.main())\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    noted = tmp_path / "pid"
    for _ in range(200):
        if noted.exists() and noted.read_text():
            break
        time.sleep(0.1)
    os.kill(driver.pid, signal.SIGINT)
    _, said = driver.communicate(timeout=30)
    assert driver.returncode == 130
    assert said.strip() == "demo: stopped; `make demo` starts again from the beginning"
    assert has_ended(int(noted.read_text()))


def test_epochs_in_a_jobs_output_become_a_second_bar():
    assert run._draw_epochs(None, "no epoch at all") is None
    bar = run._draw_epochs(None, "epoch 2/5: loss 3.5, sequences 900")
    assert (bar.n, bar.total, bar.postfix) == (2, 5, "loss 3.5, sequences 900")
    assert run._draw_epochs(bar, "another line") is bar
    bar.close()


def test_a_delta_table_is_read_at_its_newest_version(warehouse, spark):
    when = datetime(2026, 1, 1, tzinfo=UTC)
    first = spark.createDataFrame([("a b", "bad", "api", "f", when), ("c", "bot", "web", "f", when)], _quarantine())
    warehouse.create("quarantine")
    warehouse.append(first, "quarantine", {"job": "test"})
    second = spark.createDataFrame([("d", "bad", "api", "g", when)], _quarantine())
    warehouse.overwrite(second, "quarantine", {"job": "test"})
    warehouse.append(first.where("raw = 'c'"), "quarantine", {"job": "test"})
    path = Path(warehouse.path("quarantine"))
    rows = tables.read(path, ["raw", "reason"])
    assert sorted(rows, key=lambda row: row["raw"]) == [
        {"raw": "c", "reason": "bot"}, {"raw": "d", "reason": "bad"},
    ]  # fmt: skip
    assert abs((datetime.now(UTC) - tables.committed_at(path)).total_seconds()) < 120


def test_a_missing_table_has_no_rows(tmp_path):
    assert tables.read(tmp_path / "nothing", ["reason"]) == []


def test_the_spinner_and_the_bar_draw_on_a_terminal_only(demo):
    screen = io.StringIO()
    demo.bar = tqdm(total=3, disable=True, file=screen)
    demo.run("good")
    assert screen.getvalue() == ""


def _quarantine() -> str:
    from headwater import schemas

    return schemas.ddl("quarantine")
