"""Tests of whole jobs are slow: `make quick` leaves them out."""

import os
import shutil
from pathlib import Path

import broker
import pytest
import shop
from filelock import FileLock
from sites import Site

HERE = Path(__file__).parent
TEST_TIMEOUT_SECONDS = 1_200
"""Seconds after which a test of several jobs is considered hung, even on a busy machine."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.fault)
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_SECONDS))


@pytest.fixture(scope="session")
def first_night(tmp_path_factory):
    """The shop before each job of its first night, in ``before_JOB``, and after it, in ``site``. All processes of a test run share
    one; tests work on copies."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    root = shared / "first_night"
    with FileLock(shared / "first_night.lock"):
        if not (root / "done").exists():
            shutil.rmtree(root, ignore_errors=True)  # what a failed process left
            site = Site(root / "site", shop.CONFIG)
            shop.write_first_day(site.landing)
            for job, *args in (
                ("ingest_events",),
                ("build_sequences",),
                ("train_model",),
                ("score_topn", "--mode", "full"),
            ):
                shutil.copytree(site.root, root / f"before_{job}", symlinks=True)
                site.run(job, *args)
            (root / "done").touch()
    return root


@pytest.fixture(scope="session")
def trained(first_night):
    """The folder of the shop after its first night, when all users have lists; tests work on copies of it (``sites.copy_of``)."""
    return first_night / "site"


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    """A running broker. Each test makes topics of its own."""
    try:
        running = broker.Broker(tmp_path_factory.mktemp("broker"))
    except broker.NoJars as missing:
        pytest.skip(str(missing))
    yield running
    running.close()
