"""Quality on a published leave-one-out split: each user's last item is the test target, the one before it the validation target.

    python benchmarks/leave_one_out.py Beauty.txt.gz --config conf/experiments/beauty.yaml --seeds 3

The file has one line per user, "user item item …" in order of time, the format of the S3-Rec data sets (Zhou et al., 2020).
Training sees neither of the last two items; the test history contains the validation item. The whole catalogue is ranked,
seen items are excluded, and ties count against the target. ``--attributes`` is a JSON object of item → attributes, for
``model.features``. With ``model.hybrid`` the hybrid and its sequence model alone are both reported. ``--refit`` also reports
a second training that includes the validation item, for the best number of epochs and with the same blend; this is the model
that a job with ``train.refit`` keeps. No Spark: it calls the same library functions as the jobs, in one process, on a GPU if
there is one, otherwise on ``--threads`` threads.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from fitting import as_batch, attribute_matrix, fit, held_out, last_item, metrics_at_10, read
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
    rows = left_padded([items[:-2] for items in sequences], settings.encoder_length + 1)
    parts = hybrid.fit_parts(settings.blended, rows, last_item(sequences))
    for name, line in baselines(sequences, rows, parts).items():
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
    """Seconds of one training, and its HR@10 and NDCG@10 on validation and test, by name; with ``refit`` also the second
    training's on test."""
    begun = time.monotonic()
    length, n_items = config.encoder_length, last_item(sequences)
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
    """HR@10 and NDCG@10 on each split, by name, of the sequence model and, if there is one, the hybrid."""
    rankers = {"sequence model": ranker.without_blend()} | ({"hybrid": ranker} if ranker.neighbours else {})
    return {
        f"{name}, {split} {metric}": value
        for name, each in rankers.items()
        for split, held in splits.items()
        for metric, value in metrics_at_10(each, held, ranker.n_items).items()
    }


def by_part(part: Neighbours, length: int, items: list[np.ndarray], _: list[np.ndarray]) -> torch.Tensor:
    return part.scores(torch.from_numpy(left_padded(items, length)))


def baselines(sequences: list[np.ndarray], rows: np.ndarray, parts: dict[str, Neighbours]) -> dict[str, str]:
    """Test metrics of popularity and of each part of the hybrid alone, which need no training."""
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
