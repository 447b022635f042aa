"""Whole jobs take their time: `make quick` leaves them out."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
HANGS = 1_200
"""Seconds after which a test of several jobs hangs for sure, on a busy machine too."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.fault)
            item.add_marker(pytest.mark.timeout(HANGS))
