"""Find the landing files, the source that each belongs to, and files that changed after they were ingested.

A file is identified by its path below the landing folder and is ingested exactly once, as it is when found. Files and folders
whose names begin with ``.`` or ``_`` are skipped, and so is ``lost+found``, which file systems keep for themselves.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession

from headwater import local
from headwater.config import Source
from headwater.errors import HeadwaterError, UsageError
from headwater.text import first_line

WRONG_PLACE = re.compile(
    r"FileNotFound|NotADirectory|Permission|AccessControl|UnsupportedFileSystem|No FileSystem for scheme"
)
"""The errors of a folder that no later run can list either."""


@dataclass(frozen=True)
class LandingFile:
    """One file: its ``path`` below the landing folder, its ``uri`` for Spark, and its source. If a local file's name is not UTF-8,
    ``path`` shows the odd bytes as ``\\xNN``, and Spark cannot read the file.

    A range of a topic's messages is also a file (``ingest.kafka``); its size in bytes is unknown. A file that is found again is
    equal to itself unless its size or time has changed.
    """

    path: str
    uri: str
    size_bytes: int | None
    modified_at: datetime
    source: Source = field(compare=False)

    @property
    def is_local(self) -> bool:
        return self.uri.startswith("/")

    @property
    def has_utf8_name(self) -> bool:
        return self.uri == _shown(self.uri)


def source_name(source: Source) -> str:
    """The value of ``events.source``: the configured name, or the format."""
    return source.name or source.format


def resolve(spark: SparkSession, landing: str) -> str:
    """The landing folder as an absolute local path, or as the full URI that Spark uses for its files.

    Raises UsageError if a local folder is missing or not a folder, HeadwaterError if another store cannot be reached.
    """
    folder = local.folder(landing)
    if folder is None:
        with _listing(landing):
            return _qualified(spark, landing)[1].toString().rstrip("/")
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"landing folder {folder} {state}; create it or set paths.landing")
    return str(folder)


def find(spark: SparkSession, root: str, sources: list[Source]) -> tuple[list[LandingFile], list[str]]:
    """All files that match a source, sorted by path, and the paths that match several sources (the first source gets them)."""
    patterns = [(source, glob_pattern(source.glob)) for source in sources if source.glob]
    found, shared = [], []
    walk = _walk_local(root) if root.startswith("/") else _walk_hadoop(spark, root)
    for path, uri, size, modified in walk:
        if any(map(_is_skipped, path.split("/"))):
            continue
        owners = [source for source, pattern in patterns if pattern.fullmatch(path)]
        if owners:
            found.append(LandingFile(path, uri, size, modified, owners[0]))
        if len(owners) > 1:
            shared.append(path)
    return sorted(found, key=lambda file: file.path), sorted(shared)


def changed(found: Iterable[LandingFile], ledger: dict[str, Any]) -> list[str]:
    """The paths of ingested files whose size or time has changed; ``ledger`` maps path to (size, time)."""
    taken = [file for file in found if file.path in ledger and file.size_bytes is not None]
    return [file.path for file in taken if ledger[file.path] != (file.size_bytes, file.modified_at)]


def glob_pattern(glob: str) -> re.Pattern[str]:
    """A glob as a pattern for whole relative paths: ``**/`` matches any depth, ``*`` and ``?`` match within one folder."""
    out, i = "", 0
    glob = glob.removeprefix("./")
    while i < len(glob):
        if glob.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
        elif glob.startswith("**", i):
            out, i = out + ".*", i + 2
        elif glob[i] == "*":
            out, i = out + "[^/]*", i + 1
        elif glob[i] == "?":
            out, i = out + "[^/]", i + 1
        elif glob[i] == "[" and (end := glob.find("]", i + 2)) > 0:
            inside = glob[i + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            out, i = out + "[" + ("^" + inside[1:] if inside[0] == "!" else inside) + "]", end + 1
        else:
            out, i = out + re.escape(glob[i]), i + 1
    return re.compile(out, re.DOTALL)


def _walk_local(root: str) -> Iterator[tuple[str, str, int, datetime]]:
    def raise_unless_gone(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    visited = set()
    with _listing(root):
        for folder, folders, names in os.walk(root, onerror=raise_unless_gone, followlinks=True):
            real = os.path.realpath(folder)
            folders[:] = [name for name in folders if not _is_skipped(name) and real not in visited]
            visited.add(real)
            for name in names:
                full = os.path.join(folder, name)
                try:
                    status = os.stat(full)
                except FileNotFoundError:
                    continue  # renamed during the walk, or a broken link
                if stat.S_ISREG(status.st_mode):
                    modified = datetime.fromtimestamp(status.st_mtime_ns // 1_000_000 / 1000, UTC)
                    yield _shown(os.path.relpath(full, root)), full, status.st_size, modified


def _is_skipped(name: str) -> bool:
    return name.startswith((".", "_")) or name == "lost+found"


def _shown(path: str) -> str:
    """A path of this machine as text; bytes that are not UTF-8 become ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def _walk_hadoop(spark: SparkSession, root: str) -> Iterator[tuple[str, str, int, datetime]]:
    with _listing(root):
        system, base = _qualified(spark, root)
        prefix = base.toUri().getPath().rstrip("/") + "/"
        files = system.listFiles(base, True)
        while files.hasNext():  # lists one folder after the other
            status = files.next()
            path = status.getPath()
            modified = datetime.fromtimestamp(status.getModificationTime() / 1000, UTC)
            yield path.toUri().getPath().removeprefix(prefix), path.toString(), status.getLen(), modified


def _qualified(spark: SparkSession, folder: str) -> tuple[Any, Any]:
    """The Hadoop file system of a folder, and the folder's full URI."""
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(folder)
    system = path.getFileSystem(spark._jsc.hadoopConfiguration())  # type: ignore[attr-defined]
    return system, system.makeQualified(path)


@contextmanager
def _listing(folder: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = getattr(error, "java_exception", error)
        kind = UsageError if WRONG_PLACE.search(f"{type(error).__name__} {reason}") else HeadwaterError
        raise kind(f"landing folder {folder} cannot be listed: {first_line(reason)}") from None
