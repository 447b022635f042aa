"""Tests of whole jobs are slow: `make quick` leaves them out."""

from pathlib import Path

import broker
import pytest
import shop
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
def trained(tmp_path_factory):
    """The folder of the shop after its first night, when all users have lists; tests work on copies of it (``sites.copy_of``)."""
    site = Site(tmp_path_factory.mktemp("trained") / "site", shop.CONFIG)
    shop.write_first_day(site.landing)
    for job, *args in (("ingest_events",), ("build_sequences",), ("train_model",), ("score_topn", "--mode", "full")):
        site.run(job, *args)
    return site.root


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """A running broker. Each test makes topics of its own."""
    try:
        running = broker.Broker(tmp_path_factory.mktemp("broker"))
    except broker.NoJars as missing:
        pytest.skip(str(missing))
    yield running
    running.close()
