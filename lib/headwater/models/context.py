"""The context of an event as one integer: its type, the gap since the previous event, and its value.

Histories carry this code beside their items, so that more context needs no further array on any path. Codes are packed only
here, for training and scoring alike; a model looks up the parts that its ``spec.context`` names.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from headwater.clock import DAY
from headwater.schemas import EVENT_TYPES

Codes = TypeVar("Codes", np.ndarray, Tensor)

SIZES = {"event_type": len(EVENT_TYPES) + 1, "gap": 32, "value": 64}
"""The number of codes of each part. Code 0 is padding; for a gap or a value it also means that it is unknown."""
_PLACE = {"event_type": 1, "gap": SIZES["event_type"], "value": SIZES["event_type"] * SIZES["gap"]}


def pack(types: np.ndarray, at: np.ndarray, value: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Codes, int64 of the shape of ``types``, 0 where ``types`` is 0.

    ``types``: 1 + index in ``EVENT_TYPES``; ``at``: epoch seconds, in the order of events along the last axis; ``value``: float,
    NaN for an event without one; ``first``: bool, events with no known predecessor.

    The code of a gap is 1 + the number of binary digits of its whole seconds: less than 1, 2, 4, … seconds, up to 34 years. The
    code of a value above zero counts half powers of two, from 1/32 on, which separates both star ratings and prices.
    """
    seconds = np.floor(np.asarray(at, dtype=np.float64))
    between = np.diff(seconds.ravel(), prepend=0.0).reshape(seconds.shape)
    digits = np.frexp(np.where(first, 0.0, between).clip(min=0))[1]
    gap = np.where(first, 0, 1 + digits.clip(max=SIZES["gap"] - 2))
    positive = np.where(value > 0, value, 1.0)
    power = np.rint(2 * np.log2(positive)).clip(-10, SIZES["value"] - 13)
    value_code = np.where(value > 0, 12 + power, np.where(np.isnan(value), 0, 1)).astype(np.int64)
    codes = types + _PLACE["gap"] * gap + _PLACE["value"] * value_code
    return np.where(types > 0, codes, 0)


def part(codes: Codes, name: str) -> Codes:
    """One part of packed codes, of the same shape."""
    return codes // _PLACE[name] % SIZES[name]


def ages(codes: Tensor) -> Tensor:
    """The days of each event before the newest of its history, as its gaps tell them: within a factor of two per gap, and an
    unknown gap counts nothing. Float32, of the shape of ``codes`` ``[batch, seq]``."""
    gap = part(codes, "gap")
    seconds = torch.where(gap > 1, 0.75 * 2.0 ** (gap - 1), 0.0)  # the middle of what the code stands for
    later = torch.nn.functional.pad(seconds[:, 1:], (0, 1))
    return later.flip(1).cumsum(1).flip(1) / DAY
