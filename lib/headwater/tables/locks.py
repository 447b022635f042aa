"""One writer at a time per table, across processes, where Delta itself cannot ensure it.

Delta's log store for local disks is safe within one JVM only: two JVMs can overwrite each other's commit. A lock file per
table closes that gap; the kernel releases the lock when its holder dies. On object stores and HDFS no lock is taken: Delta's
log store loses no commit there, but accepts two appends of the same rows, so jobs look before they append
(``Warehouse.append_after``).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from headwater.errors import TableError, UsageError

MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)
"""Failures of a disk that is not the wrong one: a later run may succeed."""


@contextmanager
def locked(folder: Path, tables: tuple[str, ...], timeout_seconds: float) -> Iterator[None]:
    """Hold the locks of ``tables``, taken in sorted order so that two jobs never wait for each other.

    Raises TableError if another writer holds one for longer than ``timeout_seconds`` or the disk fails, UsageError if the folder
    cannot be written to.
    """
    table = ""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for table in sorted(tables):
                stack.enter_context(FileLock(folder / f"{table}.lock", timeout=timeout_seconds))
        except Timeout:
            raise TableError(
                f"table {table} has been busy with another writer for {timeout_seconds:g} s; try again later, "
                "or raise tables.lock_timeout_seconds"
            ) from None
        except OSError as error:
            line = f"warehouse {folder.parent} cannot be written to: {error.strerror}"
            if error.errno in MAY_PASS:
                raise TableError(line) from None
            raise UsageError(f"{line}; set paths.warehouse") from None
        yield
