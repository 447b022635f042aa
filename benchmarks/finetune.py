"""What does a fine-tune bring? The champion of some time ago, fine-tuned on what users did since, and trained again from scratch.

    python benchmarks/finetune.py ml-100k.inter --separator "\\t" --columns user_id:token,item_id:token,timestamp:float \\
        --config conf/experiments/films.yaml --seeds 3 --threads 1

The file is read as by ``temporal.py``. Three rounds, each of three periods of the events: a champion learns from the first,
``jobs/finetune_model.py`` would learn from the second, of ``PERIOD`` of all events, and the third, as long, is the test. All
arms have the same histories and the same recent popularity. Every event of the second period counts as feedback, as if lists had
shown its item: with the reward of a click. The parts of a hybrid are those of the champion, or counted anew from all events
before the test. The rows are means over rounds and seeds; intervals are over all tested users of all rounds. CPU seconds are
those of one training, with the choice of epochs and blend for the champion and for the one trained again. No Spark, one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import typer
from fitting import fit_from
from options import Columns, Seeds, Separator, Threads, Where, start
from temporal import NDCG, cut, held_out, of_ranker, read, recent_popularity, train

from headwater import config as configuration
from headwater import job
from headwater.config import Config
from headwater.evaluation import gate
from headwater.evaluation.cases import HeldOut
from headwater.models.neighbours import Neighbours
from headwater.models.ranker import Ranker
from headwater.training import hybrid

STARTS = (0.6, 0.7, 0.8)
"""Where the second period of each round begins, as a share of all events."""
PERIOD = 0.05
CHAMPION, TUNED, ANEW = "champion", "fine-tuned", "trained again"
ALONE = ": sequence model"
"""Added to the name of a hybrid for its sequence model alone."""


def main(
    data: Path,
    columns: Columns,
    separator: Separator = ",",
    where: Where = "",
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
    seeds: Seeds = 1,
    threads: Threads = 1,
    rate: list[float] = typer.Option(
        [], "--rate", help="learning rate; repeat for several; default: that of the config"
    ),
) -> None:
    torch.set_num_threads(threads)
    settings = configuration.load(config, set_)
    rates = rate or [settings.finetune.learning_rate]
    events = read(data, columns, separator, where)
    found: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, list[float]] = {}
    for share in STARTS:
        begin, until, end = np.quantile(events["time"], [share, share + PERIOD, share + 2 * PERIOD])
        held = held_out(events, until, end, settings)
        print(f"from {share:.0%} of the events on: {len(held):,} users tested", flush=True)
        results: dict[str, list[np.ndarray]] = {}
        for seed in range(1, seeds + 1):
            for name, value, spent in one_round(events, held, begin, until, settings, seed, rates):
                results.setdefault(name, []).append(value)
                seconds.setdefault(name, []).append(spent)
        for name, values in results.items():
            found.setdefault(name, []).append(np.mean(values, axis=0))
    show(found, seconds)


def one_round(
    events: pd.DataFrame, held: HeldOut, begin: float, until: float, config: Config, seed: int, rates: list[float]
) -> list[tuple[str, np.ndarray, float]]:
    """For each arm its name, the NDCG@10 of each user, and the CPU seconds of its training."""
    n_items, before = int(events["item"].max()), events[events["time"] < until]
    popular = recent_popularity(before, n_items, config)
    champion, spent = timed(lambda: trained_until(events, begin, n_items, config, seed))
    parts, spent_counting = timed(lambda: parts_of(before, n_items, config))
    again, spent_again = timed(lambda: trained_until(events, until, n_items, config, seed))
    arms = [
        (CHAMPION, champion, spent),
        (f"{CHAMPION}, parts counted anew", with_parts(champion, parts), spent_counting),
    ]
    for rate in rates:
        tuned, spent_tuning = timed(partial(fine_tuned, champion, before, begin, config, seed, rate))
        arms.append((f"{TUNED} at {rate:g}", tuned, spent_tuning))
        counted = with_parts(tuned, parts)
        arms.append((f"{TUNED} at {rate:g}, parts counted anew", counted, spent_tuning + spent_counting))
    arms.append((ANEW, again, spent_again))
    if not champion.blend:
        arms = [arm for arm in arms if "parts" not in arm[0]]
    found = []
    for name, ranker, cpu in arms:
        hybrids = {name: ranker}
        if ranker.blend and "parts" not in name:
            hybrids[name + ALONE] = ranker.without_blend()
        for label, each in hybrids.items():
            measured = of_ranker(each.with_recency(popular), held, n_items)
            found.append((label, measured.per_user[NDCG], cpu))
    return found


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the CPU seconds that it took."""
    since = time.process_time()
    return work(), time.process_time() - since


def trained_until(events: pd.DataFrame, until: float, n_items: int, config: Config, seed: int) -> Ranker:
    """A model of all events before a moment; the last of them choose its epochs and blend first."""
    before = events[events["time"] < until]
    begin = before["time"].quantile(1 - config.evaluate.validation_fraction)
    cases = held_out(before, begin, np.inf, config).arrays(config.sequence.max_length)
    return train(before[before["time"] < begin], before, cases, n_items, config, seed)


def fine_tuned(champion: Ranker, before: pd.DataFrame, begin: float, config: Config, seed: int, rate: float) -> Ranker:
    """The champion after a fine-tune like that of ``jobs/finetune_model.py`` on the last events of users with an event since
    ``begin``, and of a share of the others."""
    settings, rng = config.finetune, np.random.default_rng(seed)
    active = before.loc[before["time"] >= begin, "user"].unique()
    others = np.setdiff1d(before["user"].unique(), active)
    replayed = others[rng.random(len(others)) < settings.replay_fraction]
    chosen = before[before["user"].isin(np.concatenate([active, replayed]))].copy()
    chosen["answers"] = (chosen["time"] >= begin).astype(int)
    rows = cut(chosen, config, 1, config.feedback.rewards["click"])
    less = {"epochs": settings.epochs, "learning_rate": rate, "average": 0.0}
    gently = config.model_copy(update={"train": config.train.model_copy(update=less)})
    weights = {name: tensor.clone() for name, tensor in champion.model.state_dict().items()}
    model, _ = fit_from((weights, champion.model.spec), rows, None, gently, seed)
    return Ranker(model, champion.facts, champion.neighbours)


def parts_of(events: pd.DataFrame, n_items: int, config: Config) -> dict[str, Neighbours]:
    return hybrid.fit_parts(config.blended, cut(events, config)["item"], n_items)


def with_parts(ranker: Ranker, parts: dict[str, Neighbours]) -> Ranker:
    return Ranker(ranker.model, ranker.facts, parts)


def show(found: dict[str, list[np.ndarray]], seconds: dict[str, list[float]]) -> None:
    """Print a line for each arm, with the intervals of its lead over the champion and over the model trained again."""
    for name, rounds in found.items():
        suffix = ALONE if name.endswith(ALONE) else ""
        line = f"{name:<52}NDCG@10 {np.mean([values.mean() for values in rounds]):.4f}  {np.mean(seconds[name]):6.1f} CPU s"
        for other in (CHAMPION, ANEW):
            if name != other + suffix:
                difference = np.concatenate(rounds) - np.concatenate(found[other + suffix])
                low, high = gate.interval(difference, 2_000, 0.95, seed=1)
                line += f"  {low:+.4f} to {high:+.4f} beside {other}"
        print(line, flush=True)


if __name__ == "__main__":
    start(main)
