"""What of a path or URI lies on this machine's disk."""

from __future__ import annotations

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
