"""The folder of one training, named by its inputs, so that a killed training finds its work again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout

from headwater.config import Config
from headwater.errors import HeadwaterError
from headwater.local import write_atomically
from headwater.training import facts
from headwater.work import TRAININGS, lock_of, work_folder

VERSIONS = "versions.json"


def begin(config: Config, folder: Path, versions: dict[str, int]) -> None:
    """Record in the folder of a training the versions of the tables that it reads: other jobs write to the tables meanwhile."""
    folder.mkdir(exist_ok=True)
    text = json.dumps({"model_name": config.mlflow.model_name, "versions": versions})
    write_atomically(folder / VERSIONS, lambda path: path.write_text(text))


def unfinished(config: Config) -> dict[str, int] | None:
    """The table versions of the newest training of this model that has not ended; None if there is none."""
    recorded = sorted((work_folder(config) / TRAININGS).glob(f"*/{VERSIONS}"), key=lambda file: file.stat().st_mtime)
    begun = map(json.loads, (file.read_text() for file in reversed(recorded)))
    return next((one["versions"] for one in begun if one["model_name"] == config.mlflow.model_name), None)


@contextmanager
def locked_folder(config: Config, inputs: dict[str, Any]) -> Iterator[Path]:
    """The folder of a training with these ``inputs``, locked; models of different names have different folders.

    Raises HeadwaterError at once if another training holds the lock. The kernel releases the lock when its holder dies.
    """
    named = {**inputs, "processes": config.train.processes, "model_name": config.mlflow.model_name}
    folder = work_folder(config) / TRAININGS / facts.fingerprint(named)
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
