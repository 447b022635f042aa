"""One writer at a time per table, across processes, where Delta cannot see to it itself.

Delta's log store for local disks is safe within one JVM only: two of them can overwrite each other's commit. A lock
file per table closes that gap; the kernel frees it when its holder dies. On object stores and HDFS no lock is taken: Delta's
own log store loses no commit there, but it lets two appends of the same rows pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from headwater.errors import TableError, UsageError


@contextmanager
def locked(folder: Path, tables: tuple[str, ...], timeout_seconds: float) -> Iterator[None]:
    """Hold the locks of ``tables``, taken in sorted order so that two jobs never wait for each other.

    Raises TableError when another writer keeps one for longer than ``timeout_seconds``, UsageError where the folder cannot be
    made.
    """
    with ExitStack() as stack:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for table in sorted(tables):
            lock = FileLock(folder / f"{table}.lock", timeout=timeout_seconds)
            try:
                with _writing(folder):
                    stack.enter_context(lock)
            except Timeout:
                raise TableError(
                    f"table {table} has been busy with another writer for {timeout_seconds:g} s; try again later, "
                    "or raise tables.lock_timeout_seconds"
                ) from None
        yield


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise UsageError(
            f"warehouse {folder.parent} cannot be written to: {error.strerror}; set paths.warehouse"
        ) from None
