"""Named instants at which a test may kill a job; without ``HEADWATER_FAILPOINT`` they do nothing.

``HEADWATER_FAILPOINT=score_topn:after_topn`` sends SIGKILL to the process group, Python and JVM alike, the first time
that instant is reached, as a power cut or an out-of-memory killer would.
"""

from __future__ import annotations

import os
import signal

GROUP = "HEADWATER_PROCESS_GROUP"
"""Where a job leaves its process group's number for the ranks that it starts."""


def failpoint(name: str) -> None:
    """Die here if this is the instant that the environment names."""
    if os.environ.get("HEADWATER_FAILPOINT", "").removesuffix(":kill") == name:
        own = os.getpgid(0)
        os.killpg(int(os.environ.get(GROUP, own)), signal.SIGKILL)
        os.killpg(own, signal.SIGKILL)  # a training rank lives in a group of its own
