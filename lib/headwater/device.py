"""What there is to compute on: whether a GPU, as a config asks for it, and how many cores."""

from __future__ import annotations

import os
from typing import Literal

import torch

from headwater.errors import HeadwaterError


def on_gpu(asked: bool | Literal["auto"]) -> bool:
    """``auto`` takes the GPU where there is one. Raises HeadwaterError where one is asked for and this machine has none."""
    there = torch.cuda.is_available()
    if asked is True and not there:
        raise HeadwaterError("topn.use_gpu is true and there is no GPU on this machine; set it to auto or false")
    return there if asked == "auto" else asked


def cores() -> int:
    """The cores that this process may use, which in a container are not all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
