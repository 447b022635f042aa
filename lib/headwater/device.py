"""Whether to compute on a GPU: what a config asks for, and what there is."""

from __future__ import annotations

from typing import Literal

import torch

from headwater.errors import HeadwaterError


def on_gpu(asked: bool | Literal["auto"]) -> bool:
    """``auto`` takes the GPU where there is one. Raises HeadwaterError where one is asked for and this machine has none."""
    there = torch.cuda.is_available()
    if asked is True and not there:
        raise HeadwaterError("use_gpu is true and there is no GPU on this machine; set it to auto or false")
    return there if asked == "auto" else asked
