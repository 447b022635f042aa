"""What the epoch loop is told: the length and the steps of a training, and which of the ranks this process is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor

from headwater.config import Loss


@dataclass(frozen=True)
class Group:
    """This process among the ranks.

    ``total`` adds a tensor up over all of them, ``gather`` puts their rows one after another, ``alone`` is where the
    gradients of a backward pass are not added up yet.
    """

    rank: int
    world: int
    total: Callable[[Tensor], Tensor]
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor
    alone: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Settings:
    """Length and steps of a training; ``fingerprint`` names everything that its result depends on.

    ``steps``: of an epoch, for a learning rate that changes over them; ``sparse_items``: see ``training.optimizers``.
    """

    epochs: int
    learning_rate: float
    loss: Loss
    weight_decay: float
    clip_norm: float
    average: float
    patience: int
    seed: int
    mixed_precision: bool
    fingerprint: str
    accumulate: int = 1
    schedule: str = "constant"
    warmup: float = 0.0
    steps: int = 0
    sparse_items: bool = False
