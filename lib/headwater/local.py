"""What this machine has: the folder or file that a path or URI names, files written whole, and cores."""

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
    """The folder that a path or a ``file:`` URI names, absolute; None for any other URI."""
    url = urlparse(name)
    if url.scheme not in ("", "file"):
        return None
    return Path(url2pathname(url.path) if url.scheme else name).resolve()


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite URI, absolute; None for any other."""
    return Path(uri.removeprefix(SQLITE)).resolve() if uri.startswith(SQLITE) else None


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Replace a file in one step: readers see the old one or the new one, whole, even if power fails. ``write`` makes it
    under another name, in the same folder."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cores() -> int:
    """How many this process may use, which need not be all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
