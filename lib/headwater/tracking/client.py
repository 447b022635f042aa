"""A client for the tracking store that answers or fails within seconds, and never unpickles anything."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from filelock import FileLock

from headwater.config import Config
from headwater.errors import HeadwaterError, TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient


def connect(config: Config) -> MlflowClient:
    """A client of ``config.tracking_uri``; raises TrackingError when nobody listens there."""
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(config.mlflow.timeout_seconds)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    uri = config.tracking_uri
    address = urlparse(uri)
    if address.scheme in ("http", "https"):
        port = address.port or (443 if address.scheme == "https" else 80)
        try:
            socket.create_connection((address.hostname or "", port), timeout=config.mlflow.timeout_seconds).close()
        except OSError as error:
            raise TrackingError(
                f"MLflow at {uri} cannot be reached ({error.strerror or error}); check mlflow.tracking_uri"
            ) from None
    with asking(uri):
        import logging

        import mlflow

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        if address.scheme != "sqlite":
            return mlflow.MlflowClient(uri, uri)
        path = Path(uri.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=300):  # two first starts would both create the tables
            client = mlflow.MlflowClient(uri, uri)
            client.search_experiments(max_results=1)
        return client


@contextmanager
def asking(uri: str) -> Iterator[None]:
    """Turn whatever MLflow raises into one sentence that names the store."""
    try:
        yield
    except (HeadwaterError, KeyboardInterrupt):
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrackingError(f"MLflow at {uri} failed: {first[:300]}") from error
