"""The local machine: the folder or file that a path or URI names, atomic file writes, and the number of cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname
from uuid import uuid4

SQLITE = "sqlite:///"


def folder(name: str) -> Path | None:
    """The absolute folder that a path or a ``file:`` URI names; None for any other URI."""
    url = urlparse(name)
    if url.scheme not in ("", "file"):
        return None
    return Path(url2pathname(url.path) if url.scheme else name).resolve()


def sqlite_file(uri: str) -> Path | None:
    """The absolute file that a SQLite URI names; None for any other URI."""
    return Path(uri.removeprefix(SQLITE)).resolve() if uri.startswith(SQLITE) else None


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Replace a file in one step: readers see the complete old or the complete new file, even after a power failure.
    ``write`` creates the new file under a temporary name in the same folder."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Wait until a file's data, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cores() -> int:
    """The number of cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
