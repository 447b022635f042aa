"""The folder of one training, named by its inputs, so that a killed training finds its work again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout

from headwater.config import Config
from headwater.errors import HeadwaterError
from headwater.training import facts
from headwater.work import lock_of, work_folder


@contextmanager
def locked_folder(config: Config, inputs: dict[str, Any]) -> Iterator[Path]:
    """The folder of a training with these ``inputs``, locked; models of different names have different folders.

    Raises HeadwaterError at once if another training holds the lock. The kernel releases the lock when its holder dies.
    """
    named = {**inputs, "processes": config.train.processes, "model_name": config.mlflow.model_name}
    folder = work_folder(config) / "training" / facts.fingerprint(named)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_of(folder)
    try:
        lock.acquire()
    except Timeout:
        raise HeadwaterError(
            f"another training of model {config.mlflow.model_name} is using {folder}; wait until it finishes, or set another "
            "mlflow.model_name"
        ) from None
    try:
        yield folder
    finally:
        lock.release()
