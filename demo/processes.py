"""A job and its descendant processes: measure their memory and stop them. Uses /proc; without it, descendants are unknown.

A job starts a JVM and, in training, one process per rank. Ranks run in sessions of their own, so a signal to the job's process
group alone would leave them behind.
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
    """The ids of the process and all its descendants."""
    children = defaultdict(list)
    for stat in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # the command's name is in parentheses and may contain anything; the parent's id is the second word after it
            children[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
    family, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        family.append(one)
        waiting += children[one]
    return family


def memory_gib(pid: int) -> float:
    """The memory in GiB of a process and its descendants, with shared pages counted once; 0 without /proc."""
    total = 0
    for one in descendants(pid):
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+)", (PROC / str(one) / "smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
    return total / 2**20


def stop(child: subprocess.Popen, patience: float = 5.0) -> None:
    """End a child that leads a process group, and all its descendants, first with SIGTERM and after ``patience`` seconds with
    SIGKILL."""
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
