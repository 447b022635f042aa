"""One training from steps to weights: windows of histories, their snapshot, initial weights, ranks.

It has one or two stages on the same snapshot. With ``train.pretrain_epochs`` the first stage gives all events the same weight as
targets. The second starts from its weights, with ``train.targets`` and the learning rate of a fine-tuning: at that of a training
it would forget what the few targets do not repeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from scipy import sparse
from torch import Tensor

from headwater.config import Config, Targets, Train
from headwater.local import write_atomically
from headwater.models import SequenceModel
from headwater.models.spec import ModelSpec
from headwater.training import artifact, initial, readers, snapshot, train
from headwater.training.validation import Cases


@dataclass(frozen=True)
class Task:
    """What the trainings of one version have in common.

    ``inputs``: facts that identify the tables learned from; ``described``: item features from the catalogue
    (``training.describe``), None for a model without; ``source``: a model of another site to start from.
    """

    spec: ModelSpec
    config: Config
    inputs: dict[str, Any]
    described: sparse.csr_matrix | None = None
    source: SequenceModel | None = None
    resume: bool = False


@dataclass(frozen=True)
class Epochs:
    """The number of epochs of each stage: those to train, or the best ones by validation."""

    pretrain: int
    train: int


@dataclass(frozen=True)
class Learned:
    """``items``: the training data, int ``[sequences, seq]``, left-padded with 0; ``answers``: rank 0's answer in each stage."""

    spec: ModelSpec
    items: np.ndarray
    sequences: int
    answers: list[dict[str, Any]]

    @property
    def weights(self) -> dict[str, Tensor]:
        return artifact.read_weights(self.answers[-1]["weights"])

    @property
    def best(self) -> Epochs:
        return Epochs(sum(answer["best_epoch"] for answer in self.answers[:-1]), self.answers[-1]["best_epoch"])

    @property
    def loss(self) -> float:
        """The training loss of the epoch whose weights are kept."""
        return self.answers[-1]["history"][self.best.train - 1]["loss"]

    @property
    def history(self) -> list[dict[str, float]]:
        """One dict per epoch; the second stage continues the count of the first."""
        entries = [entry for answer in self.answers for entry in answer["history"]]
        return [{**entry, "epoch": number} for number, entry in enumerate(entries, start=1)]


def learn(
    task: Task, steps: DataFrame, folder: Path, validation: Cases | None = None, epochs: Epochs | None = None
) -> Learned:
    """Train on ``steps`` until validation no longer improves, or for at most the given ``epochs``. ``folder`` keeps everything
    that a resumed training needs, including the initial weights."""
    spec, config, options = task.spec, task.config, task.config.train
    data = snapshot.export_histories(steps, spec, options, folder / "snapshot", task.inputs)
    items = readers.read_items(data.files, spec.n_items)
    start_fingerprint = initial.fingerprint(spec, options.seed, config.model.initial, task.described, task.source)
    weights = folder / f"initial-{start_fingerprint}.safetensors"
    if not (task.resume and weights.exists()):
        factor_sequences = items if config.model.initial == "cooccurrence" else None
        start, _ = initial.weights(spec, options.seed, factor_sequences, task.described, task.source)
        write_atomically(weights, lambda path: artifact.write_weights(path, start))
    spec = initial.spec_of(spec, task.described, task.source)
    answers: list[dict[str, Any]] = []
    for name, stage in stages(config, epochs or Epochs(options.pretrain_epochs, options.epochs)).items():
        planned = train.plan(
            data, spec, stage, folder / name, validation=validation, initial_weights=weights, resume=task.resume
        )
        answers.append(train.run(planned, stage))
        weights = Path(answers[-1]["weights"])
    return Learned(spec, items, data.manifest["sequences"], answers)


def stages(config: Config, epochs: Epochs) -> dict[str, Train]:
    """The settings of each stage, in order, by the name of its folder."""
    only = config.train.model_copy(update={"epochs": epochs.train})
    if not config.train.pretrain_epochs:
        return {"run": only}
    return {
        "pretrain": config.train.model_copy(update={"epochs": epochs.pretrain, "targets": Targets()}),
        "run": only.model_copy(update={"learning_rate": config.finetune.learning_rate}),
    }
