"""A separate Airflow home for these tests. Airflow reads its settings when it is first imported, so they are set before that."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(tempfile.mkdtemp(prefix="headwater-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
BIN = Path(sys.executable).parent

os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
    AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "airflow_dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="false",
    AIRFLOW__CORE__UNIT_TEST_MODE="false",
    AIRFLOW_CONN_SPARK_DEFAULT='{"conn_type": "spark", "host": "local[2]"}',
    HEADWATER_HOME=str(ROOT),
    PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}",
)


@pytest.fixture(scope="session")
def airflow_home():
    """A migrated SQLite database with the pools of the pool file."""
    for words in (["db", "migrate"], ["pools", "import", str(ROOT / "airflow_dags" / "pools.json")]):
        ended = subprocess.run(
            [sys.executable, "-m", "airflow", *words], capture_output=True, text=True, timeout=300, check=False
        )
        assert ended.returncode == 0, f"airflow {' '.join(words)}: {ended.stderr[-2000:]}"
    return HOME
