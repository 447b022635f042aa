"""The folder that one training works in, named by what it reads, so that one that was killed finds its work again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headwater.config import Config
from headwater.errors import HeadwaterError
from headwater.tracking.registry import work_folder
from headwater.training import facts


@contextmanager
def held(config: Config, inputs: dict[str, Any]) -> Iterator[Path]:
    """The folder of ``inputs``, kept from any other training; models of different names work in different ones.

    Raises HeadwaterError, at once, where another training is in it. The kernel frees the lock when its holder dies; its file
    stays, as whoever removed it would let in two.
    """
    named = {**inputs, "processes": config.train.processes, "model_name": config.mlflow.model_name}
    folder = work_folder(config) / "training" / facts.fingerprint(named)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise HeadwaterError(
            f"another training of model {config.mlflow.model_name} works in {folder}; wait for its end, or set another "
            "mlflow.model_name"
        ) from None
    try:
        yield folder
    finally:
        lock.release()
