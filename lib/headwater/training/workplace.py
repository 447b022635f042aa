"""The folder of one training, named by its inputs, so that a killed training finds its work again."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from headwater.config import Config
from headwater.errors import HeadwaterError
from headwater.local import write_atomically
from headwater.training import facts
from headwater.work import TRAININGS, lock_of, work_folder

VERSIONS = "versions.json"


def begin(config: Config, folder: Path, versions: dict[str, int]) -> str:
    """Record in the folder of a training the versions of the tables that it reads: other jobs write to the tables meanwhile.
    An older record with the same settings is dropped: that training is not to be continued after this one.

    Returns an id of the training, which it keeps when it is resumed.
    """
    folder.mkdir(exist_ok=True)
    record = folder / VERSIONS
    begun = json.loads(record.read_text()) if record.exists() else {}
    training: str = begun.get("training") or uuid.uuid4().hex
    text = json.dumps({"training": training, "settings": settings(config), "versions": versions})
    write_atomically(record, lambda path: path.write_text(text))
    for file in _records(config):
        if file != record:
            file.unlink(missing_ok=True)
    return training


def end(folder: Path) -> None:
    """Remove the folder of a training that is registered, its record last: until then its id tells that it is."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != VERSIONS:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def unfinished(config: Config) -> dict[str, int] | None:
    """The table versions of the training with these settings that has not ended; None if there is none."""
    return next((json.loads(file.read_text())["versions"] for file in _records(config)), None)


def _records(config: Config) -> list[Path]:
    """The files in which trainings with these settings recorded their versions."""
    found = []
    for file in (work_folder(config) / TRAININGS).glob(f"*/{VERSIONS}"):
        with suppress(FileNotFoundError):  # that training has ended just now
            if json.loads(file.read_text()).get("settings") == settings(config):
                found.append(file)
    return found


def settings(config: Config) -> dict[str, Any]:
    """The settings that a training's folder depends on. Under others a killed training goes on in no folder, and what it read
    must not be read again."""
    return {
        "model_name": config.mlflow.model_name,
        "protocol": config.evaluate.protocol,
        "max_length": config.sequence.max_length,
        "encoder_length": config.encoder_length,
        "windows": config.train.windows,
        "seed": config.train.seed,
        "processes": config.train.processes,
    }


@contextmanager
def discarded_on_error(folder: Path) -> Iterator[None]:
    """Remove the folder of a training that fails: for one that is never resumed, it would only fill the disk."""
    try:
        yield
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise


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
