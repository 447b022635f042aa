"""What this machine has: the folder or file that a path or URI names, and cores."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

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


def cores() -> int:
    """How many this process may use, which need not be all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
