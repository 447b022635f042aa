"""One training from steps to weights: windows of histories, their snapshot, weights to start from, ranks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from torch import Tensor

from headwater.config import Config
from headwater.models.spec import ModelSpec
from headwater.training import artifact, initial, readers, snapshot, train
from headwater.training.validation import Cases


@dataclass(frozen=True)
class Learned:
    """``items``: what was learned from, int ``[sequences, seq]``, left-padded with 0; ``answer``: rank 0's."""

    spec: ModelSpec
    items: np.ndarray
    sequences: int
    answer: dict[str, Any]

    @property
    def weights(self) -> dict[str, Tensor]:
        return artifact.read_weights(self.answer["weights"])


def learn(
    steps: DataFrame,
    folder: Path,
    inputs: dict[str, Any],
    spec: ModelSpec,
    config: Config,
    described: Any,
    resume: bool,
    validation: Cases | None = None,
    epochs: int | None = None,
) -> Learned:
    """Train on some steps: until validation no longer improves, or for so many ``epochs``."""
    pieces = snapshot.windows(steps, spec.max_length, config.train.windows)
    rows = snapshot.training_rows(pieces, spec.n_items, spec.max_length)
    data = snapshot.export(rows, folder / "snapshot", inputs, config.train.processes, config.train.seed)
    learned_from = readers.read_all(data.files)["item"]
    known_pairs = learned_from if config.model.initial == "cooccurrence" else None
    start, spec = initial.weights(spec, config.train.seed, known_pairs, described)
    initial_weights = folder / "initial.safetensors"
    artifact.write_weights(initial_weights, start)
    planned = train.plan(
        data, spec, config.train, folder / "run", validation, initial_weights, resume=resume, epochs=epochs
    )
    return Learned(spec, learned_from, data.manifest["sequences"], train.run(planned, config.train))
