"""Named instants at which a test may kill a job; without ``HEADWATER_FAILPOINT`` they do nothing.

``HEADWATER_FAILPOINT=score_topn:after_topn`` sends SIGKILL to the process group, Python and JVM alike, the first time
that instant is reached, as a power cut or an out-of-memory killer would.
"""

from __future__ import annotations

import os
import signal


def failpoint(name: str) -> None:
    """Die here if this is the instant that the environment names."""
    if os.environ.get("HEADWATER_FAILPOINT", "").removesuffix(":kill") == name:
        os.killpg(os.getpgid(0), signal.SIGKILL)
