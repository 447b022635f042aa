"""A site for whole-job tests: folders, a config file, and jobs run on it as their users do."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import shop
import yaml

import warm

ROOT = Path(__file__).resolve().parent.parent
JOB_TIMEOUT_SECONDS = 420
"""Seconds after which a job is considered hung."""


class Site:
    """A landing folder, a warehouse and a config file; runs jobs as their users do."""

    def __init__(self, root: Path, config: dict) -> None:
        self.root = root
        self.landing = root / "landing"
        self.warehouse = root / "warehouse"
        self.landing.mkdir(parents=True, exist_ok=True)
        config = {"paths": {"landing": str(self.landing), "warehouse": str(self.warehouse)}, **config}
        config.setdefault("spark", {"spark.sql.shuffle.partitions": "2"})
        self.config = root / "site.yaml"
        self.config.write_text(yaml.safe_dump(config, allow_unicode=True))

    def start(self, job: str, *args: str, failpoint: str = "", command: list[str] | None = None, **environment: str):
        """Run a job to its end, in a new process; ``failpoint`` kills it, Python and JVM, at a named instant."""
        if failpoint:
            environment["HEADWATER_FAILPOINT"] = failpoint
        process = subprocess.Popen(
            [*(command or [sys.executable]), str(ROOT / "jobs" / f"{job}.py"), "--config", str(self.config), *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            cwd=self.root,
            env={**os.environ, **environment},
        )
        try:
            out, err = process.communicate(timeout=JOB_TIMEOUT_SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, job: str, *args: str, fresh: bool = False) -> dict:
        """Run a job that must succeed, in the tests' own session or, if ``fresh``, in a new process; returns its last line."""
        ended = self.start(job, *args) if fresh else self.run_here(job, *args)
        assert ended.returncode == 0, f"{job} {args}: {ended.stderr[-3000:]}"
        return json.loads(ended.stdout.strip().splitlines()[-1])

    def run_here(self, job: str, *args: str) -> subprocess.CompletedProcess:
        """Run a job in this process and its Spark session, as the demo does; returns its output and exit code."""
        out, err = io.StringIO(), io.StringIO()
        command = [str(ROOT / "jobs" / f"{job}.py"), "--config", str(self.config), *args]
        with redirect_stdout(out), redirect_stderr(err):
            code = warm.run(command[0], command[1:])
        return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())

    def commits(self, table: str) -> int:
        """The number of commits in a table's log."""
        return len(list((self.warehouse / table / "_delta_log").glob("*.json")))

    def rows(self, spark, table: str, *columns: str) -> list[tuple]:
        """A table's rows, sorted by ``repr``, for comparison."""
        frame = spark.read.format("delta").load(str(self.warehouse / table))
        return sorted((tuple(row) for row in frame.select(*(columns or frame.columns)).collect()), key=repr)


def copy_of(trained: Path, folder: Path, *topics: dict, **settings) -> Site:
    """A copy of the shop after its first night, with additional Kafka sources and replaced sections of the config."""
    shutil.copytree(trained, folder, symlinks=True)
    sources = [*shop.CONFIG["ingest"]["sources"], *topics]
    config = {**shop.CONFIG, "ingest": {**shop.CONFIG["ingest"], "sources": sources}, **settings}
    return Site(folder, yaml.safe_load(yaml.safe_dump(config)))
