"""A job's whole family of processes: what memory it holds, and how to end it. Reads /proc; elsewhere it knows less.

A job starts a JVM and, in training, one process per rank; the latter sit in sessions of their own, so that a signal to
the job's group alone would leave them behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections import defaultdict
from pathlib import Path

PROC = Path("/proc")


def descendants(pid: int) -> list[int]:
    """The process and all below it."""
    children = defaultdict(list)
    for stat in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # the command's name is in brackets and may hold anything; the parent is the second word after it
            children[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
    family, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        family.append(one)
        waiting += children[one]
    return family


def memory_gib(pid: int) -> float:
    """Memory of a process and all below it, shared pages counted once; 0 where /proc does not tell."""
    total = 0
    for one in descendants(pid):
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+)", (PROC / str(one) / "smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
    return total / 2**20


def stop(child: subprocess.Popen, patience: float = 5.0) -> None:
    """End a child that leads a process group, and all that it started: asked first, then made to."""
    if child.poll() is not None:
        return
    family = descendants(child.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for one in family[1:]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(one, signal.SIGKILL)
    child.wait()
