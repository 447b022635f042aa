"""A client for the tracking store that succeeds or fails within seconds, and never unpickles anything."""

from __future__ import annotations

import os
import re
import sqlite3
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from filelock import FileLock, Timeout

from headwater import local
from headwater.config import Config
from headwater.errors import HeadwaterError, TrackingError
from headwater.text import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

FIRST_START_SECONDS = 120
"""How long a job waits while another job creates the tables of a SQLite store."""
REQUEST_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
TRANSFER_SECONDS = 600
"""How long a job waits for one file to be stored or sent."""


def connect(config: Config) -> MlflowClient:
    """A client of ``config.tracking_uri``; raises TrackingError if it does not answer in ``mlflow.timeout_seconds``."""
    timeout = config.mlflow.timeout_seconds
    uri = config.tracking_uri
    scheme = urlparse(uri).scheme
    if scheme in ("http", "https"):
        _check_reachable(uri, timeout)
    with mlflow_errors(uri):
        mlflow = import_mlflow(config)
        path = local.sqlite_file(uri)
        if path is None:
            return mlflow.MlflowClient(uri, uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _first_start_lock(path):  # two first starts would both create the tables
            _need_writable(path, timeout)
            client = mlflow.MlflowClient(uri, uri)
            client.search_experiments(max_results=1)
        return client


def import_mlflow(config: Config) -> ModuleType:
    """The imported MLflow module. The import takes seconds and does not access a store."""
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
    os.environ[REQUEST_TIMEOUT] = str(config.mlflow.timeout_seconds)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import logging

    import mlflow

    # errors are also raised, and reported in one line; MLflow would print a stack trace as well
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    return mlflow


@contextmanager
def transfers() -> Iterator[None]:
    """Inside, each request of MLflow has time for a large file: a server may answer only when it has stored it."""
    before = os.environ[REQUEST_TIMEOUT]
    os.environ[REQUEST_TIMEOUT] = str(max(int(before), TRANSFER_SECONDS))
    try:
        yield
    finally:
        os.environ[REQUEST_TIMEOUT] = before


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turn any error of MLflow into one sentence that names the store."""
    try:
        yield
    except (HeadwaterError, KeyboardInterrupt):
        raise
    except Exception as error:
        first = first_line(error)
        raise TrackingError(f"MLflow at {without_password(uri)} failed: {without_password(first[:300])}") from error


def without_password(text: str) -> str:
    """The text with the password of every ``scheme://user:password@host`` masked, up to the last ``@`` before a blank: a
    password may have any character."""
    return re.sub(r"(://[^/@\s:]*):\S+@", r"\1:***@", text)


def _check_reachable(uri: str, timeout: float) -> None:
    """Raises TrackingError if the server does not answer in time. Any HTTP answer counts, even an error page."""
    address = urlparse(uri)
    bare = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
    try:
        urllib.request.urlopen(bare.rstrip("/") + "/health", timeout=timeout).close()
    except (urllib.error.HTTPError, ssl.SSLError):
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLError):
            return  # the server answers; MLflow's own settings decide whether its certificate is acceptable
        reason_text = f"no answer in {timeout:g} s" if isinstance(reason, TimeoutError) else str(reason)
        raise TrackingError(
            f"MLflow at {without_password(uri)} cannot be reached ({reason_text}); check mlflow.tracking_uri"
        ) from None


@contextmanager
def _first_start_lock(path: Path) -> Iterator[None]:
    try:
        with FileLock(f"{path}.lock", timeout=FIRST_START_SECONDS):
            yield
    except Timeout:
        raise TrackingError(
            f"MLflow at sqlite:///{path} has been busy for {FIRST_START_SECONDS} s; try again later"
        ) from None


def _need_writable(path: Path, timeout: float) -> None:
    """MLflow itself would wait 20 s for a locked SQLite file, whatever ``mlflow.timeout_seconds`` says."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=timeout, isolation_level=None)) as store:
            store.execute("BEGIN IMMEDIATE")
            store.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise TrackingError(f"MLflow at sqlite:///{path} cannot be used: {error}") from None
