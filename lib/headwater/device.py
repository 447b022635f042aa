"""Whether to compute on a GPU: what a config asks for, and what there is."""

from __future__ import annotations

from typing import Literal

import torch


def on_gpu(asked: bool | Literal["auto"]) -> bool:
    """``auto`` takes the GPU where there is one."""
    return torch.cuda.is_available() if asked == "auto" else asked
