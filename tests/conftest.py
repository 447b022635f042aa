"""Fixtures shared by all tests: one Spark session, an empty warehouse, and a site that runs jobs as a user does."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors are small: threads would only wait for each other
logging.getLogger("py4j").setLevel(logging.WARNING)  # it logs its shutdown when nobody is left to read it
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "demo")]  # for shop, sites, inside and warm, which whole-job tests share


LONGEST_FILES = ("test_nearline", "test_kills", "test_nightly_run", "test_local_cluster", "test_maintain_tables")


def pytest_collection_modifyitems(items):
    """Run the longest files first, then other whole-job tests, so that no pytest process ends with a long one."""

    def turn(item):
        long = LONGEST_FILES.index(item.path.stem) if item.path.stem in LONGEST_FILES else len(LONGEST_FILES)
        return long, item.get_closest_marker("fault") is None

    items.sort(key=turn)


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


@pytest.fixture
def site(tmp_path):
    """A function that opens a site with a config, in a folder of its own."""

    from sites import Site

    def open_site(config: dict, name: str = "site") -> Site:
        return Site(tmp_path / name, config)

    return open_site
