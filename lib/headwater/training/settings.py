"""The settings of a training, a process's place among the ranks, and the plan that all ranks read."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from headwater.config import Loss, Train
from headwater.models.spec import ModelSpec


@dataclass(frozen=True)
class Group:
    """This process as one of the ranks, and the device that it computes on.

    ``total`` sums a tensor over all ranks, ``gather`` concatenates the rows of all ranks, and within ``no_sync`` a backward pass
    does not yet reduce gradients over the ranks.
    """

    rank: int
    world: int
    total: Callable[[Tensor], Tensor]
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor
    no_sync: Callable[[], AbstractContextManager[None]] = nullcontext
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def of_one(cls, device: torch.device) -> Group:
        """A process that trains alone."""
        return cls(0, 1, torch.clone, device=device)


@dataclass(frozen=True)
class Settings:
    """The settings of a training; ``fingerprint`` identifies everything that its result depends on.

    ``steps``: per epoch, for a learning rate schedule; ``sparse_items``: see ``training.optimizers``.
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
        """The settings from a config, for a catalogue of ``n_items`` and ``steps`` per epoch."""
        values = {each.name: getattr(train, each.name) for each in fields(cls) if each.name in Train.model_fields}
        values |= {"loss": train.loss.of_catalogue(n_items), "sparse_items": train.moves_rows(n_items)}
        values |= {"steps": steps, "fingerprint": fingerprint}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return asdict(self) | {"loss": self.loss.model_dump()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        return cls(**values | {"loss": Loss(**values["loss"])})


@dataclass(frozen=True)
class Plan:
    """Everything that a rank needs, passed as one line of JSON.

    ``snapshot``, ``folder`` (of checkpoints and weights), ``validation`` and ``initial_weights`` are paths; the last two are
    empty if there is none. ``targets``: the weight of an event as a target, by a snapshot's event type codes, that of padding
    first; ``batch_size``: rows over all ranks; ``threads``: per rank on a CPU, 0 on executors, where Spark sets them;
    ``timeout_seconds``: a rank that hangs for longer ends the run.
    """

    snapshot: str
    spec: ModelSpec
    settings: Settings
    targets: list[float]
    batch_size: int
    reader: str
    folder: str
    validation: str
    initial_weights: str
    resume: bool
    use_gpu: bool
    threads: int
    timeout_seconds: int

    def to_json(self) -> str:
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps(plain | {"spec": self.spec.to_dict(), "settings": self.settings.to_dict()})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        values = json.loads(text)
        values |= {"spec": ModelSpec(**values["spec"]), "settings": Settings.from_dict(values["settings"])}
        return cls(**values)
