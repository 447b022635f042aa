"""What all tests share: one Spark session, an empty warehouse, a way to run a job as a user does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: threads would only wait for each other
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))  # for shop, the data that whole-job tests share
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def spark():
    """A local[2] session with Delta, the way jobs open theirs."""
    from headwater.config import Config
    from headwater.spark import session

    os.environ["MASTER"] = "local[2]"
    session = session(Config(spark={"spark.sql.shuffle.partitions": "2"}), "tests")
    yield session
    session.stop()


@pytest.fixture
def warehouse(spark, tmp_path):
    from headwater.tables import Warehouse

    return Warehouse(spark, str(tmp_path / "warehouse"), lock_timeout_seconds=60)


class Site:
    """A landing folder, a warehouse and a config file; runs jobs as processes of their own."""

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
            out, err = process.communicate(timeout=420)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, job: str, *args: str, **how) -> dict:
        """The closing line of a job that must succeed."""
        ended = self.start(job, *args, **how)
        assert ended.returncode == 0, f"{job} {args}: {ended.stderr[-3000:]}"
        return json.loads(ended.stdout.strip().splitlines()[-1])

    def rows(self, spark, table: str, *columns: str) -> list[tuple]:
        """A table's rows, sorted by their text, for comparison."""
        frame = spark.read.format("delta").load(str(self.warehouse / table))
        return sorted((tuple(row) for row in frame.select(*(columns or frame.columns)).collect()), key=repr)


@pytest.fixture
def site(tmp_path):
    """A function that opens a site with a config, in a folder of its own."""

    def open_site(config: dict, name: str = "site") -> Site:
        return Site(tmp_path / name, config)

    return open_site
