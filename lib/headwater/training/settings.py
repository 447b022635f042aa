"""What the epoch loop is told: the length and the steps of a training, and which of the ranks this process is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from headwater.config import Loss, Train


@dataclass(frozen=True)
class Group:
    """This process among the ranks, and the device that it computes on.

    ``total`` adds a tensor up over all of them, ``gather`` puts their rows one after another, ``alone`` is where the
    gradients of a backward pass are not added up yet.
    """

    rank: int
    world: int
    total: Callable[[Tensor], Tensor]
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor
    alone: Callable[[], AbstractContextManager[None]] = nullcontext
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def of_one(cls, device: torch.device) -> Group:
        """A process that trains by itself."""
        return cls(0, 1, torch.clone, device=device)


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

    @classmethod
    def of(cls, train: Train, n_items: int, steps: int, fingerprint: str = "") -> Settings:
        """What a config asks for, with a catalogue of ``n_items`` and ``steps`` to an epoch."""
        asked = {each.name: getattr(train, each.name) for each in fields(cls) if each.name in Train.model_fields}
        asked |= {"sparse_items": train.moves_rows(n_items), "steps": steps, "fingerprint": fingerprint}
        return cls(**asked)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return asdict(self) | {"loss": self.loss.model_dump()}

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Settings:
        return cls(**told | {"loss": Loss(**told["loss"])})
