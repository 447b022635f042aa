"""The work folder: snapshots, checkpoints and fetched models, all of which can be made again."""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from headwater import local
from headwater.config import Config
from headwater.errors import UsageError


def work_folder(config: Config) -> Path:
    """``paths.work``, or ``_work`` in a local warehouse."""
    if config.paths.work:
        return Path(config.paths.work).resolve()
    warehouse = local.folder(config.paths.warehouse)
    if warehouse is None:
        raise UsageError("paths.warehouse is not a local folder; set paths.work to one that all machines share")
    return warehouse / "_work"


def lock_of(training: Path) -> FileLock:
    """The lock of a training's folder, which does not wait. Its file lies beside the folder and is never deleted: deleting
    it would let a second training in."""
    return FileLock(training.with_name(f"{training.name}.lock"), timeout=0)


def prune(config: Config, before: float) -> int:
    """Remove from the work folder what nobody has used since ``before`` (epoch seconds), and return how many folders that were.

    These are fetched models, which are fetched again when somebody asks for them, and what abandoned trainings left. The
    folder of a training that is running stays.
    """
    if not config.paths.work and local.folder(config.paths.warehouse) is None:
        return 0
    work, removed = work_folder(config), 0
    for folder in filter(Path.is_dir, work.glob("models/*/*")):
        removed += _removed(folder, before)
    for folder in filter(Path.is_dir, work.glob("training/*")):
        with suppress(Timeout), lock_of(folder):
            removed += _removed(folder, before)
    return removed


def _removed(folder: Path, before: float) -> bool:
    old = _last_used(folder) < before
    if old:
        shutil.rmtree(folder, ignore_errors=True)
    return old


def _last_used(folder: Path) -> float:
    """When something in the folder last changed, epoch seconds; infinity where a file vanishes meanwhile: it is in use."""
    with suppress(FileNotFoundError):
        return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    return math.inf
