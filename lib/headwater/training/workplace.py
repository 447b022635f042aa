"""The folder of one training, named by its inputs, so that a killed training finds its work again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from headwater.config import Config
from headwater.errors import DivergenceError, HeadwaterError
from headwater.local import write_atomically
from headwater.training import facts
from headwater.work import TRAININGS, discard, lock_of, work_folder

VERSIONS = "versions.json"
OF_MACHINE = {"use_gpu", "local_mode", "reader", "timeout_seconds"}
"""The keys of ``train`` under which a training may go on with other values."""
OF_SPLIT = {"protocol", "targets", "test_fraction", "validation_fraction", "max_days"}
"""The keys of ``evaluate`` by which a training holds events out."""


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


def unfinished(config: Config) -> dict[str, int] | None:
    """The table versions of the training with these settings that has not ended; None if there is none."""
    return next((json.loads(file.read_text())["versions"] for file in _records(config)), None)


def _records(config: Config) -> list[Path]:
    """The files in which trainings with these settings recorded their versions."""
    found = []
    for file in (work_folder(config) / TRAININGS).glob(f"[!.]*/{VERSIONS}"):  # a hidden folder is being removed
        with suppress(FileNotFoundError):  # that training has ended just now
            if json.loads(file.read_text()).get("settings") == settings(config):
                found.append(file)
    return found


def settings(config: Config) -> dict[str, Any]:
    """The settings that a training depends on. Under others a killed training does not go on, nor with the events of its time."""
    return {
        "model_name": config.mlflow.model_name,
        "max_length": config.sequence.max_length,
        "model": config.model.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude=OF_MACHINE),
        "evaluate": config.evaluate.model_dump(mode="json", include=OF_SPLIT),
        "second_stage_rate": config.finetune.learning_rate,
    }


@contextmanager
def not_continued_if_diverged(folder: Path) -> Iterator[None]:
    """Drop the record of a training that diverges: on the events of its time it would diverge again. Its checkpoints stay."""
    try:
        yield
    except DivergenceError:
        (folder / VERSIONS).unlink(missing_ok=True)
        raise


@contextmanager
def discarded_on_error(folder: Path) -> Iterator[None]:
    """Remove the folder of a training that fails: for one that is never resumed, it would only fill the disk."""
    try:
        yield
    except Exception:
        discard(folder)
        raise


@contextmanager
def locked_folder(config: Config, inputs: dict[str, Any]) -> Iterator[Path]:
    """The folder of a training with these ``inputs`` and ``settings``, locked.

    Raises HeadwaterError at once if another training holds the lock. The kernel releases the lock when its holder dies.
    """
    folder = work_folder(config) / TRAININGS / facts.fingerprint({**inputs, "settings": settings(config)})
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
