"""Time of training without the parts that are not counted. Peers import this module in their own environment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Watch:
    """``wall`` and ``cpu`` seconds since its creation, without those inside ``paused``."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._begun[0]

    @property
    def cpu(self) -> float:
        return time.process_time() - self._begun[1]

    @contextmanager
    def paused(self) -> Iterator[None]:
        wall, cpu = self.wall, self.cpu
        yield
        self._begun = time.perf_counter() - wall, time.process_time() - cpu
