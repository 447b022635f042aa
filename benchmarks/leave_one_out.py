"""Quality on a published benchmark: sequences of one file, each user's last item tests, the one before validates.

    python benchmarks/leave_one_out.py Beauty.txt.gz --config conf/experiments/beauty.yaml --seeds 3

The file has a line a user, "user item item …" in order of time, the format of the S3-Rec data sets (Zhou et al., 2020).
Training sees neither of the last two items; the test history holds the validation item. The whole catalogue is ranked,
seen items left out, ties against us. ``--attributes`` is a JSON object of item → attributes, for ``model.features``.
With ``model.hybrid`` the blend and its sequence model alone stand in two columns. No Spark: the same rooms of the
library that the jobs call, in one process, on a GPU where there is one and else on ``--threads`` threads.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from headwater import config as configuration
from headwater import models
from headwater.config import Config
from headwater.evaluation.cases import HeldOut
from headwater.evaluation.measure import measure
from headwater.evaluation.ranking import Scores
from headwater.models import SequenceModel
from headwater.models.histories import left_padded
from headwater.models.neighbours import Neighbours
from headwater.models.ranker import Ranker
from headwater.training import describe, facts, hybrid, initial, loop, readers
from headwater.training.settings import Group, Settings
from headwater.training.validation import Cases, mean_ndcg

Start = tuple[dict[str, torch.Tensor], models.ModelSpec]
"""Weights by name, and what they are the weights of."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLICK = 3
"""Event type of everything: the files do not tell."""


def main(
    data: Path,
    config: list[Path] = typer.Option([], "--config"),
    set_: list[str] = typer.Option([], "--set"),
    attributes: Path | None = typer.Option(None, "--attributes", help="JSON: item → list of attributes"),
    seeds: int = typer.Option(1, "--seeds", help="trainings, with seeds 1, 2, …"),
    threads: int = typer.Option(2, "--threads"),
) -> None:
    torch.set_num_threads(threads)
    settings = configuration.load(config, set_)
    sequences = read(data)
    described = attribute_matrix(attributes, sequences) if attributes else None
    print(f"{len(sequences):,} users, {last_item(sequences):,} items", flush=True)
    rows = left_padded([items[:-2] for items in sequences], settings.sequence.max_length + 1)
    parts = hybrid.fit_parts(settings.model.blend, rows, last_item(sequences)) if settings.model.hybrid else {}
    for name, values in beside(sequences, rows, parts).items():
        print(f"{name:<36}{values}", flush=True)
    found = [train(sequences, rows, parts, described, settings, seed) for seed in range(1, seeds + 1)]
    for name in found[0]:
        values = np.array([each[name] for each in found])
        print(f"{name:<36}{values.mean():.4f} ± {values.std(ddof=min(1, seeds - 1)):.4f}")


def read(path: Path) -> list[np.ndarray]:
    """Items of each user, oldest first; the number of an item is no feature of it."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [np.array(line.split()[1:], dtype=np.int64) for line in lines]


def last_item(sequences: list[np.ndarray]) -> int:
    return max(int(items.max()) for items in sequences)


def attribute_matrix(path: Path, sequences: list[np.ndarray]) -> Any:
    told = json.loads(path.read_text())
    return describe.hashed([[str(a) for a in told.get(str(k), [])] for k in range(last_item(sequences) + 1)])


def held_out(sequences: list[np.ndarray], place: int) -> HeldOut:
    """Each user's item ``place`` from the end (1 the last) and what lies before it."""
    before = [items[:-place] for items in sequences]
    return HeldOut(
        np.arange(len(sequences)),
        before,
        [np.full(len(items), CLICK) for items in before],
        [np.unique(items) for items in before],
        [items[-place : len(items) - place + 1] for items in sequences],
        np.array([len(items) for items in before]),
    )


def train(
    sequences: list[np.ndarray],
    rows: np.ndarray,
    parts: dict[str, Neighbours],
    described: Any,
    config: Config,
    seed: int,
) -> dict[str, float]:
    """HR@10 and NDCG@10 of one training on validation and test, by name."""
    begun = time.monotonic()
    length, n_items = config.sequence.max_length, last_item(sequences)
    validation = held_out(sequences, 2)
    cases = validation.arrays(length)
    model, best_epoch = fit(as_batch(rows[(rows > 0).sum(1) >= 2]), cases, described, n_items, config, seed)
    trained = time.monotonic() - begun
    known: dict[str, Any] = {"blend": hybrid.best_blend(model, parts, cases)} if parts else {}
    ranker = Ranker(model, known, parts)
    print(f"seed {seed}: {trained:.0f} s, best epoch {best_epoch}, {known.get('blend', '')}", flush=True)
    found: dict[str, float] = {"seconds": trained}
    for name, each in {"sequence model": ranker.alone(), "hybrid": ranker}.items():
        if each.neighbours or name != "hybrid":
            for split, held in {"validation": validation, "test": held_out(sequences, 1)}.items():
                found |= {f"{name}, {split} {k}": v for k, v in quality(each, held, n_items).items()}
    return found


def by_ndcg(model: SequenceModel, cases: Cases) -> float:
    return mean_ndcg(model, cases, DEVICE)


def built(start: Start) -> SequenceModel:
    weights, spec = start
    model = models.build(spec)
    model.load_state_dict(weights)
    return model.eval()


def fit(
    batch: readers.Batch,
    cases: Cases | None,
    described: Any,
    n_items: int,
    config: Config,
    seed: int,
    judge: Callable[[SequenceModel, Cases], float] = by_ndcg,
) -> tuple[SequenceModel, int]:
    """A model trained on all rows in this process, and its best epoch by ``judge``; the last one without ``cases``."""
    known_pairs = batch["item"] if config.model.initial == "cooccurrence" else None
    spec = facts.spec_of(config, n_items)
    start = initial.weights(spec, seed, known_pairs, described if config.model.features else None)
    return fit_from(start, batch, cases, config, seed, judge)


def fit_from(
    start: Start,
    batch: readers.Batch,
    cases: Cases | None,
    config: Config,
    seed: int,
    judge: Callable[[SequenceModel, Cases], float] = by_ndcg,
) -> tuple[SequenceModel, int]:
    """The same from given weights on."""
    model, n_items = built(start).to(DEVICE), start[1].n_items
    counts = torch.from_numpy(readers.target_counts([""], lambda _: batch, n_items))
    steps = readers.steps([{"rows": len(batch["item"])}], config.train.batch_size, 1)
    with tempfile.TemporaryDirectory() as folder:
        fitted = loop.fit(
            model,
            model,
            lambda epoch: readers.epoch([""], lambda _: batch, config.train.batch_size, seed, epoch),
            None if cases is None else lambda judged: judge(judged, cases),
            Settings.of(config.train.model_copy(update={"seed": seed}), n_items, steps),
            Group.of_one(DEVICE),
            Path(folder),
            False,
            counts,
        )
    model.load_state_dict(fitted.weights)
    return model.cpu().eval(), fitted.best_epoch


def as_batch(rows: np.ndarray, context: np.ndarray | None = None) -> readers.Batch:
    """Int rows ``[rows, seq]``, left-padded with 0, as a reader gives those of one file; clicks where no more is known."""
    codes = CLICK * (rows > 0) if context is None else context
    return {"item": rows, "context": codes, "weight": np.ones(rows.shape, np.float32)}


def quality(ranker: Ranker, held: HeldOut, n_items: int) -> dict[str, float]:
    def scores(items: list[np.ndarray], context: list[np.ndarray]) -> Any:
        return ranker.scores(*ranker.pad(items, context))

    measured = measure(scores, held, [10], np.ones(n_items + 1))
    return {"HR@10": measured.mean("hit_rate", 10), "NDCG@10": measured.mean("ndcg", 10)}


def beside(sequences: list[np.ndarray], rows: np.ndarray, parts: dict[str, Neighbours]) -> dict[str, str]:
    """What needs no training, on the test split."""
    n_items, held = last_item(sequences), held_out(sequences, 1)
    counts = np.bincount(rows.ravel(), minlength=n_items + 1)
    popular = torch.from_numpy(counts - np.arange(n_items + 1) / (2 * n_items + 2))
    scores: dict[str, Scores] = {"popularity": lambda items, _: popular.expand(len(items), -1)}
    for name, part in parts.items():
        scores[name] = lambda items, _, part=part: part.scores(torch.from_numpy(left_padded(items, rows.shape[1])))
    found = {name: measure(each, held, [10], counts) for name, each in scores.items()}
    return {
        name: f"test HR@10 {each.mean('hit_rate', 10):.4f} NDCG@10 {each.mean('ndcg', 10):.4f}"
        for name, each in found.items()
    }


if __name__ == "__main__":
    typer.run(main)
