"""Code shared by benchmarks: read sequences from a file and train a model on them in this process, without Spark or ranks.

It calls the same library functions as the jobs, on a GPU if there is one.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwater import models
from headwater.config import Config
from headwater.evaluation.cases import HeldOut
from headwater.evaluation.measure import measure
from headwater.models import SequenceModel
from headwater.models.histories import left_padded
from headwater.models.ranker import Ranker
from headwater.training import describe, facts, initial, loop, readers
from headwater.training.settings import Group, Settings
from headwater.training.validation import Cases, mean_ndcg

Start = tuple[dict[str, torch.Tensor], models.ModelSpec]
"""Weights by name, and the spec of their model."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLICK = 3
"""Event type of all events: the files do not record it."""


def read(path: Path) -> list[np.ndarray]:
    """Items of each user, oldest first, by their numbers in the file."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [np.array(line.split()[1:], dtype=np.int64) for line in lines]


def last_item(sequences: list[np.ndarray]) -> int:
    return max(int(items.max()) for items in sequences)


def attribute_matrix(path: Path, sequences: list[np.ndarray]) -> Any:
    attributes = json.loads(path.read_text())
    return describe.hashed([[str(a) for a in attributes.get(str(k), [])] for k in range(last_item(sequences) + 1)])


def held_out(sequences: list[np.ndarray], place: int) -> HeldOut:
    """Each user's item ``place`` from the end (1 is the last) as the target, and the items before it as the history."""
    before = [items[:-place] for items in sequences]
    return HeldOut(
        np.arange(len(sequences)),
        before,
        [np.full(len(items), CLICK) for items in before],
        [np.unique(items) for items in before],
        [items[-place : len(items) - place + 1] for items in sequences],
        np.array([len(items) for items in before]),
    )


def as_batch(rows: np.ndarray, context: np.ndarray | None = None) -> readers.Batch:
    """Int rows ``[rows, seq]``, left-padded with 0, as a reader returns those of one file. Without ``context`` all are clicks."""
    codes = CLICK * (rows > 0) if context is None else context
    return {"item": rows, "context": codes, "weight": np.ones(rows.shape, np.float32)}


def windows(users: list[dict[str, np.ndarray]], length: int, count: int, reward: float = 0.0) -> readers.Batch:
    """``item`` and ``context`` of each user, cut like ``training.snapshot.windows`` into rows ``[rows, length + 1]``. With a
    ``reward``, it is added to the weight of events whose ``answers`` is 1 and not 0."""
    ends = [(user, len(user["item"]) - length * piece) for user in users for piece in range(count)]

    def cut(name: str) -> np.ndarray:
        return left_padded([user[name][max(0, end - length - 1) : end] for user, end in ends if end >= 2], length + 1)

    batch = as_batch(cut("item"), cut("context"))
    if reward:
        batch["weight"] += np.float32(reward) * cut("answers")
    return batch


def validation_ndcg(model: SequenceModel, cases: Cases) -> float:
    return mean_ndcg(model, cases, DEVICE)


def fit(
    batch: readers.Batch,
    cases: Cases | None,
    described: Any,
    n_items: int,
    config: Config,
    seed: int,
    validate: Callable[[SequenceModel, Cases], float] = validation_ndcg,
) -> tuple[SequenceModel, int]:
    """Train a model on all rows; returns it as of its best epoch by ``validate``, and that epoch; without ``cases``, the last."""
    factor_sequences = batch["item"] if config.model.initial == "cooccurrence" else None
    spec = facts.spec_of(config, n_items)
    start = initial.weights(spec, seed, factor_sequences, described if config.model.features else None)
    return fit_from(start, batch, cases, config, seed, validate)


def fit_from(
    start: Start,
    batch: readers.Batch,
    cases: Cases | None,
    config: Config,
    seed: int,
    validate: Callable[[SequenceModel, Cases], float] = validation_ndcg,
) -> tuple[SequenceModel, int]:
    """Like ``fit``, but starting from given weights."""
    model, n_items = build_model(start).to(DEVICE), start[1].n_items
    counts = torch.from_numpy(readers.target_counts([""], lambda _: batch, n_items))
    data = loop.Data(
        batches=lambda epoch: readers.epoch([""], lambda _: batch, config.train.batch_size, seed, epoch),
        target_counts=counts,
        validate=None if cases is None else lambda ema_model: validate(ema_model, cases),
    )
    steps = readers.steps_per_epoch([{"rows": len(batch["item"])}], config.train.batch_size, 1)
    settings = Settings.of(config.train.model_copy(update={"seed": seed}), n_items, steps)
    with tempfile.TemporaryDirectory() as folder:
        fitted = loop.fit(model, data, settings, Group.of_one(DEVICE), Path(folder))
    model.load_state_dict(fitted.weights)
    return model.cpu().eval(), fitted.best_epoch


def build_model(start: Start) -> SequenceModel:
    weights, spec = start
    model = models.build(spec)
    model.load_state_dict(weights)
    return model.eval()


def metrics_at_10(ranker: Ranker, held: HeldOut, n_items: int) -> dict[str, float]:
    def scores(items: list[np.ndarray], context: list[np.ndarray]) -> Any:
        return ranker.scores(*ranker.pad(items, context))

    measured = measure(scores, held, [10], np.ones(n_items + 1))
    return {"HR@10": measured.mean("hit_rate", 10), "NDCG@10": measured.mean("ndcg", 10)}
