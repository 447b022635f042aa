"""Named points at which a test may kill a job; without ``HEADWATER_FAILPOINT`` they do nothing.

``HEADWATER_FAILPOINT=score_topn:after_topn`` sends SIGKILL to the process group, both Python and the JVM, the first time the
job reaches that point, as a power cut or the out-of-memory killer would.
"""

from __future__ import annotations

import os
import signal

GROUP = "HEADWATER_PROCESS_GROUP"
"""The environment variable in which a job passes its process group id to the ranks that it starts."""


def failpoint(name: str) -> None:
    """Die here if the environment names this point."""
    if os.environ.get("HEADWATER_FAILPOINT", "").removesuffix(":kill") == name:
        own = os.getpgid(0)
        os.killpg(int(os.environ.get(GROUP, own)), signal.SIGKILL)
        os.killpg(own, signal.SIGKILL)  # a training rank lives in a group of its own
