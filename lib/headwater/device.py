"""Whether to compute on a GPU, from the config and the hardware."""

from __future__ import annotations

from typing import Literal

import torch

from headwater.errors import HeadwaterError


def on_gpu(asked: bool | Literal["auto"]) -> bool:
    """``auto`` uses the GPU if there is one. Raises HeadwaterError if the config demands a GPU and this machine has none."""
    there = torch.cuda.is_available()
    if asked is True and not there:
        raise HeadwaterError("use_gpu is true, but this machine has no GPU; set it to auto or false")
    return there if asked == "auto" else asked
