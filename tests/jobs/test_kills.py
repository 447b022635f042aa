"""kill -9 at every named instant between commits, then a rerun: the tables equal those of a clean run."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import shop
import yaml
from sites import JOB_TIMEOUT_SECONDS, ROOT, Site, copy_of


@pytest.fixture(scope="module")
def clean(trained, tmp_path_factory):
    """The shop after a first night in which nothing was killed."""
    return copy_of(trained, tmp_path_factory.mktemp("clean") / "site")


def copy_before(first_night, job, tmp_path, name="site"):
    """A copy of the shop as it was before ``job``."""
    shutil.copytree(first_night / f"before_{job}", tmp_path / name, symlinks=True)
    return Site(tmp_path / name, yaml.safe_load(yaml.safe_dump(shop.CONFIG)))


def any_process(relation, pid):
    """Whether a process has ``pid`` as its parent (-P) or session (-s)."""
    return subprocess.run(["pgrep", relation, str(pid)], stdout=subprocess.DEVNULL).returncode == 0


def run_until_killed(site, job, failpoint, *args):
    ended = site.start(job, *args, failpoint=failpoint)
    assert ended.returncode == -signal.SIGKILL, f"{failpoint} was not reached: {ended.stderr[-2000:]}"


def test_an_ingest_killed_again_and_again_loses_and_doubles_nothing(first_night, clean, tmp_path, spark):
    site = copy_before(first_night, "ingest_events", tmp_path)
    for instant in ("after_plan", "after_quarantine", "after_items"):
        run_until_killed(site, "ingest_events", f"ingest_events:{instant}")
    again = copy_before(first_night, "ingest_events", tmp_path, "again")
    shutil.copytree(site.warehouse, again.warehouse)
    closing = site.run("ingest_events")
    assert {key: closing[key] for key in shop.FIRST_DAY} == shop.FIRST_DAY
    run_until_killed(again, "ingest_events", "ingest_events:after_events")
    assert again.run("ingest_events")["rows_in"] == 0
    for table, columns in (
        ("events", ("event_id", "user_id", "item_id", "event_time", "source_file")),
        ("quarantine", ("raw", "reason", "source_file")),
        ("items", ("item_id", "item_idx", "title")),
        ("ingest_files", ("path", "batch")),
    ):
        expected = clean.rows(spark, table, *columns)
        assert site.rows(spark, table, *columns) == expected, table
        assert again.rows(spark, table, *columns) == expected, table


@pytest.mark.parametrize(
    ("stop", "code", "line"),
    [
        (lambda job: os.killpg(job, signal.SIGINT), 130, "stopped by Ctrl-C; "),  # in a terminal it also stops Java
        (lambda job: os.kill(job, signal.SIGTERM), 143, "stopped by SIGTERM; "),
        (lambda job: subprocess.run(["pkill", "-KILL", "-P", str(job), "java"], check=True), 1, "Java has ended, "),
    ],
)
def test_a_job_that_is_stopped_says_so_in_one_line_and_the_next_run_goes_on(first_night, tmp_path, stop, code, line):
    site = copy_before(first_night, "ingest_events", tmp_path)
    command = [sys.executable, str(ROOT / "jobs/ingest_events.py"), "--config", str(site.config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as job:
        assert job.stderr is not None
        begun = next(line for line in job.stderr if "batch begins" in line or "ingest_events: " in line)
        assert "batch begins" in begun
        stop(job.pid)
        said = job.stderr.read()
    assert job.returncode == code
    assert said.splitlines()[-1].startswith(f"ingest_events: {line}")
    assert "Traceback" not in said
    closing = site.run("ingest_events")
    assert {key: closing[key] for key in shop.FIRST_DAY} == shop.FIRST_DAY


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, "stopped by Ctrl-C; "), (signal.SIGTERM, 143, "stopped by SIGTERM; ")],
)
def test_a_job_that_is_stopped_while_java_starts_leaves_no_java_behind(first_night, tmp_path, number, code, line):
    site = copy_before(first_night, "ingest_events", tmp_path)
    command = [sys.executable, str(ROOT / "jobs/ingest_events.py"), "--config", str(site.config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as job:
        assert job.stderr is not None
        until = time.monotonic() + JOB_TIMEOUT_SECONDS
        while not any_process("-P", job.pid):
            assert time.monotonic() < until, "Java was not started"
            time.sleep(0.02)
        os.kill(job.pid, number)
        said = job.stderr.read()
    assert job.returncode == code
    assert said.splitlines()[-1].startswith(f"ingest_events: {line}")
    assert "Exception" not in said
    while any_process("-s", job.pid):
        assert time.monotonic() < until, "a process of the session is left"
        time.sleep(0.1)


def test_a_build_killed_again_and_again_gives_the_same_sequences(first_night, clean, tmp_path, spark):
    site = copy_before(first_night, "build_sequences", tmp_path)
    for instant in ("before_merge", "after_merge"):
        run_until_killed(site, "build_sequences", f"build_sequences:{instant}")
    assert site.run("build_sequences")["users_changed"] == 0
    columns = ("user_id", "item_idx", "event_type", "event_time", "seen_items")
    assert site.rows(spark, "sequences", *columns) == clean.rows(spark, "sequences", *columns)


def test_a_scoring_killed_again_and_again_publishes_each_list_once(first_night, clean, tmp_path, spark):
    site = copy_before(first_night, "score_topn", tmp_path)
    for instant in ("before_topn", "after_topn", "after_history"):
        run_until_killed(site, "score_topn", f"score_topn:{instant}", "--mode", "nearline")
    assert site.run("score_topn", "--mode", "nearline")["users_scored"] == 0
    columns = ("user_id", "rank", "item_id", "score", "reason")
    for table, more in (("topn", ()), ("topn_history", ()), ("sections", ("section", "heading"))):
        assert site.rows(spark, table, *columns, *more) == clean.rows(spark, table, *columns, *more), table
    embeddings = site.rows(spark, "item_embeddings", "model_version", "item_idx")
    assert len(embeddings) == len(set(embeddings)) == 40


def test_a_refresh_killed_between_new_and_known_users_completes_both(clean, tmp_path, spark):
    """New users' rows have a separate commit, which must not be taken for the complete update."""
    sites = []
    for name in ("clean", "killed"):
        shutil.copytree(clean.root, tmp_path / name, symlinks=True)
        site = Site(tmp_path / name, yaml.safe_load(yaml.safe_dump(shop.CONFIG)))
        changed = shop.write_second_day(site.landing)
        site.run("ingest_events")
        sites.append(site)
    for job, *args in (("build_sequences",), ("score_topn", "--mode", "nearline")):
        for site in sites:
            if site is sites[1]:
                run_until_killed(site, job, f"{job}:after_new", *args)
            closing = site.run(job, *args)
            assert closing["users_changed"] == len(changed) - (job == "score_topn" and site is sites[1])
    for table, columns in (
        ("sequences", ("user_id", "item_idx", "event_type", "seen_items")),
        ("topn", ("user_id", "rank", "item_id", "reason")),
        ("sections", ("user_id", "section", "rank", "item_id", "heading", "reason")),
    ):
        assert sites[1].rows(spark, table, *columns) == sites[0].rows(spark, table, *columns), table
    history = sites[1].rows(spark, "topn_history", "user_id", "rank", "generated_at")
    assert len(history) == len(set(history)) == 60 * 5 + (len(changed) + 1) * 5


def test_a_training_killed_twice_resumes_to_the_same_weights_and_registers_them_once(
    first_night, clean, tmp_path, spark
):
    site = copy_before(first_night, "train_model", tmp_path)
    # the second training of one with other settings does not get in the way
    run_until_killed(site, "train_model", "train_model:before_register", "--set", "train.learning_rate=0.01")
    run_until_killed(site, "train_model", "train_model:after_checkpoint")
    run_until_killed(site, "train_model", "train_model:after_register", "--resume")
    shop.write_second_day(site.landing)  # neither do new events
    site.run("ingest_events")
    resumed = site.run("train_model", "--resume")
    site.run("build_sequences")
    site.run("score_topn", "--mode", "full")
    assert resumed["model_version"] == 1
    columns = ("model_version", "item_idx", "embedding")
    assert site.rows(spark, "item_embeddings", *columns) == clean.rows(spark, "item_embeddings", *columns)


def test_two_nearline_writers_at_once_lose_nothing(clean, tmp_path, spark):
    from concurrent.futures import ThreadPoolExecutor

    shutil.copytree(clean.root, tmp_path / "site", symlinks=True)
    site = Site(tmp_path / "site", yaml.safe_load(yaml.safe_dump(shop.CONFIG)))
    changed = shop.write_second_day(site.landing)
    with ThreadPoolExecutor(2) as pool:
        closings = [call.result() for call in [pool.submit(site.run, "ingest_events", fresh=True) for _ in range(2)]]
        assert sorted(closing["rows_events"] for closing in closings) == [0, 14]
        closings = [call.result() for call in [pool.submit(site.run, "build_sequences", fresh=True) for _ in range(2)]]
        assert sorted(closing["users_changed"] for closing in closings) == [0, len(changed)]
        runs = [pool.submit(site.run, "score_topn", "--mode", "nearline", fresh=True) for _ in range(2)]
        assert sorted(call.result()["users_scored"] for call in runs) == [0, len(changed)]
    history = site.rows(spark, "topn_history", "user_id", "rank", "generated_at")
    assert len(history) == len(set(history)) == 60 * 5 + len(changed) * 5
