"""Whether to compute on a GPU, from the config and the hardware."""

from __future__ import annotations

from typing import Literal

import torch

from headwater.errors import HeadwaterError


def on_gpu(setting: bool | Literal["auto"]) -> bool:
    """``auto`` uses the GPU if there is one. Raises HeadwaterError if the config demands a GPU and this machine has none."""
    available = torch.cuda.is_available()
    if setting is True and not available:
        raise HeadwaterError("use_gpu is true, but this machine has no GPU; set it to auto or false")
    return available if setting == "auto" else setting
