"""A site for whole-job tests: folders, a config file, and jobs run on it as their users do."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 420
"""Seconds that one job may take before it hangs for sure."""


class Worker:
    """A process with one Spark session that runs jobs one after the other: ``demo/warm.py``."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="headwater-worker-"))
        self.answer, self.said = folder / "answer", folder / "said"
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "demo" / "warm.py"), str(self.answer)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                start_new_session=True,
                cwd=folder,
            )
        atexit.register(self.kill)

    def run(self, command: list[str]) -> subprocess.CompletedProcess:
        start = self.said.stat().st_size
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        try:
            answered = select.select([self.process.stdout], [], [], LONGEST)[0]
            code = int(self.process.stdout.readline() or -1) if answered else -1
        except BaseException:
            self.kill()
            raise
        if code == -1:
            self.kill()
        err = self.said.read_bytes()[start:].decode(errors="replace")
        return subprocess.CompletedProcess(command, code, self.answer.read_text(errors="replace"), err)

    def kill(self) -> None:
        worker.cache_clear()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@cache
def worker() -> Worker:
    return Worker()


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
        """The completed process of one job; a fail-point kills it, Python and JVM, at a named instant."""
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
            out, err = process.communicate(timeout=LONGEST)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, job: str, *args: str, fresh: bool = False) -> dict:
        """The closing line of a job that must succeed; in a process of its own where that matters."""
        program = [str(ROOT / "jobs" / f"{job}.py"), "--config", str(self.config), *args]
        ended = self.start(job, *args) if fresh else worker().run(program)
        assert ended.returncode == 0, f"{job} {args}: {ended.stderr[-3000:]}"
        return json.loads(ended.stdout.strip().splitlines()[-1])

    def rows(self, spark, table: str, *columns: str) -> list[tuple]:
        """A table's rows, sorted by their text, for comparison."""
        frame = spark.read.format("delta").load(str(self.warehouse / table))
        return sorted((tuple(row) for row in frame.select(*(columns or frame.columns)).collect()), key=repr)
