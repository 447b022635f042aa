"""Quality on a published benchmark: sequences of one file, each user's last item tests, the one before validates.

    python benchmarks/leave_one_out.py Beauty.txt.gz --config conf/experiments/beauty.yaml --seeds 3

The file has a line a user, "user item item …" in order of time, the format of the S3-Rec data sets (Zhou et al., 2020).
Training sees neither of the last two items; the test history holds the validation item. The whole catalogue is ranked,
seen items left out, ties against us. ``--attributes`` is a JSON object of item → attributes, for ``model.features``.
With ``model.hybrid`` the blend and its sequence model alone stand in two columns. ``--refit``: beside them the same trained
again with the validation item, for as many epochs and with the same blend, which is what a job with ``train.refit`` keeps.
No Spark: the same rooms of the library that the jobs call, in one process, on a GPU where there is one and else on
``--threads`` threads.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from fitting import as_batch, attribute_matrix, fit, held_out, last_item, quality, read
from options import MaybeAttributes, Seeds, Threads, start

from headwater import config as configuration
from headwater import job
from headwater.config import Config
from headwater.evaluation.cases import HeldOut
from headwater.evaluation.measure import measure
from headwater.evaluation.ranking import Scores
from headwater.models.histories import left_padded
from headwater.models.neighbours import Neighbours
from headwater.models.ranker import Ranker
from headwater.training import hybrid


def main(
    data: Path,
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
    attributes: MaybeAttributes = None,
    seeds: Seeds = 1,
    threads: Threads = 2,
    refit: bool = typer.Option(False, "--refit", help="also train again with the validation item"),
) -> None:
    torch.set_num_threads(threads)
    settings = configuration.load(config, set_)
    sequences = read(data)
    described = attribute_matrix(attributes, sequences) if attributes else None
    print(f"{len(sequences):,} users, {last_item(sequences):,} items", flush=True)
    rows = left_padded([items[:-2] for items in sequences], settings.sequence.max_length + 1)
    parts = hybrid.fit_parts(settings.blended, rows, last_item(sequences))
    for name, line in beside(sequences, rows, parts).items():
        print(f"{name:<36}{line}", flush=True)
    found = [train(sequences, rows, parts, described, settings, seed, refit) for seed in range(1, seeds + 1)]
    for name in found[0]:
        values = np.array([each[name] for each in found])
        print(f"{name:<36}{values.mean():.4f} ± {values.std(ddof=min(1, seeds - 1)):.4f}")


def train(
    sequences: list[np.ndarray],
    rows: np.ndarray,
    parts: dict[str, Neighbours],
    described: Any,
    config: Config,
    seed: int,
    refit: bool,
) -> dict[str, float]:
    """HR@10 and NDCG@10 of one training on validation and test, by name; those of a second one on the test."""
    begun = time.monotonic()
    length, n_items = config.sequence.max_length, last_item(sequences)
    validation = held_out(sequences, 2)
    cases = validation.arrays(length)
    model, best_epoch = fit(as_batch(rows[(rows > 0).sum(1) >= 2]), cases, described, n_items, config, seed)
    trained = time.monotonic() - begun
    known: dict[str, Any] = {"blend": hybrid.best_blend(model, parts, cases)} if parts else {}
    print(f"seed {seed}: {trained:.0f} s, best epoch {best_epoch}, {known.get('blend', '')}", flush=True)
    test = held_out(sequences, 1)
    found = {"seconds": trained, **of_splits(Ranker(model, known, parts), {"validation": validation, "test": test})}
    if refit:
        longer = left_padded([items[:-1] for items in sequences], length + 1)
        again = config.model_copy(update={"train": config.train.model_copy(update={"epochs": best_epoch})})
        model, _ = fit(as_batch(longer[(longer > 0).sum(1) >= 2]), None, described, n_items, again, seed)
        ranker = Ranker(model, known, hybrid.fit_parts(config.blended, longer, n_items))
        found |= of_splits(ranker, {"refit, test": test})
    return found


def of_splits(ranker: Ranker, splits: dict[str, HeldOut]) -> dict[str, float]:
    """HR@10 and NDCG@10 on each split, by name, of the sequence model and, where there is one, of the hybrid."""
    rankers = {"sequence model": ranker.alone()} | ({"hybrid": ranker} if ranker.neighbours else {})
    return {
        f"{name}, {split} {metric}": value
        for name, each in rankers.items()
        for split, held in splits.items()
        for metric, value in quality(each, held, ranker.n_items).items()
    }


def by_part(part: Neighbours, length: int, items: list[np.ndarray], _: list[np.ndarray]) -> torch.Tensor:
    return part.scores(torch.from_numpy(left_padded(items, length)))


def beside(sequences: list[np.ndarray], rows: np.ndarray, parts: dict[str, Neighbours]) -> dict[str, str]:
    """What needs no training, on the test split."""
    n_items, held = last_item(sequences), held_out(sequences, 1)
    counts = np.bincount(rows.ravel(), minlength=n_items + 1)
    popular = torch.from_numpy(counts - np.arange(n_items + 1) / (2 * n_items + 2))
    scores: dict[str, Scores] = {"popularity": lambda items, _: popular.expand(len(items), -1)}
    for name, part in parts.items():
        scores[name] = partial(by_part, part, rows.shape[1])
    found = {name: measure(each, held, [10], counts) for name, each in scores.items()}
    return {
        name: f"test HR@10 {each.mean('hit_rate', 10):.4f} NDCG@10 {each.mean('ndcg', 10):.4f}"
        for name, each in found.items()
    }


if __name__ == "__main__":
    start(main)
