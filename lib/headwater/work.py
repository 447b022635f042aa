"""The work folder: snapshots, checkpoints and downloaded models, all of which can be recreated."""

from __future__ import annotations

import math
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from headwater import local
from headwater.config import Config
from headwater.errors import UsageError

TRAININGS = "training"
"""The folder in which each training has one."""


def work_folder(config: Config) -> Path:
    """``paths.work``, or ``_work`` in a local warehouse."""
    if config.paths.work:
        return Path(config.paths.work).resolve()
    warehouse = local.folder(config.paths.warehouse)
    if warehouse is None:
        raise UsageError("paths.warehouse is not a local folder; set paths.work to one that all machines share")
    return warehouse / "_work"


def lock_of(training: Path) -> FileLock:
    """The lock of a training's folder; acquiring it does not wait. The lock file is beside the folder and is never deleted:
    deleting it would let a second training in."""
    return FileLock(training.with_name(f"{training.name}.lock"), timeout=0)


def discard(folder: Path) -> None:
    """Remove a folder, for others all at once: half a training or half a model, left by a kill, would be taken for a damaged one.
    ``prune`` removes what a kill leaves, which has a hidden name."""
    hidden = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def prune(config: Config, before: float) -> int:
    """Remove folders in the work folder that have not been used since ``before`` (epoch seconds); return how many.

    These are downloaded models, which are downloaded again when needed, and leftovers of abandoned trainings. The folder of a
    running training stays.
    """
    if not _has_work_folder(config):
        return 0
    models = filter(Path.is_dir, work_folder(config).glob("models/*/*"))
    return sum(_remove_if_unused(folder, before) for folder in models) + prune_trainings(config, before)


def prune_trainings(config: Config, before: float = math.inf) -> int:
    """The same for leftovers of trainings alone, by default all of them; downloaded models, which may be in use, stay."""
    removed = 0
    for folder in _trainings(config):
        with suppress(Timeout), lock_of(folder):
            removed += _remove_if_unused(folder, before)
    return removed


def is_training(config: Config) -> bool:
    """Whether a training runs now."""
    return any(map(_is_locked, _trainings(config)))


def _trainings(config: Config) -> list[Path]:
    """The folders of trainings, running or left."""
    if not _has_work_folder(config):
        return []
    return list(filter(Path.is_dir, work_folder(config).glob(f"{TRAININGS}/*")))


def _is_locked(training: Path) -> bool:
    try:
        with lock_of(training):
            return False
    except Timeout:
        return True


def _has_work_folder(config: Config) -> bool:
    return bool(config.paths.work) or local.folder(config.paths.warehouse) is not None


def _remove_if_unused(folder: Path, before: float) -> bool:
    unused = _last_used(folder) < before
    if unused:
        discard(folder)
    return unused


def _last_used(folder: Path) -> float:
    """The time of the last change in the folder, in epoch seconds; infinity if a file vanishes meanwhile: the folder is in use."""
    with suppress(FileNotFoundError):
        return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    return math.inf
