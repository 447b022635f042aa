"""Does an earlier training stage help? Training on 5 %, 20 % and 100 % of the users, from scratch and from earlier weights.

    python benchmarks/stages.py targets ml-100k.inter --set model.layers=1 --set train.batch_size=32 \\
        --set train.learning_rate=0.003 --set train.pretrain_epochs=10 --set train.epochs=20 --set train.patience=4
    python benchmarks/stages.py transfer Beauty.txt.gz --attributes Beauty_item2attributes.json \\
        --config conf/experiments/beauty.yaml --set model.dim=64 --set train.loss.kind=sampled_softmax \\
        --set train.loss.negatives=512 --set train.epochs=12 --set train.patience=3

``targets``: a file of ratings; lists must find those of 4 and higher. Pre-training predicts all ratings of all users, for
``train.pretrain_epochs``; then a share of the users teaches which ratings are high, with ``finetune.learning_rate``. Each
user's last high rating is the test target, the one before it the validation target.

``transfer``: sequences as in ``leave_one_out.py``. The items are divided at random into the catalogues of two shops, which
share attributes but no item. A model is trained on all users of one shop, then on a share of the users of the other.

All users are tested; early stopping uses only those of the share. NDCG@10 over the whole catalogue, seen items excluded. No
Spark, one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import typer
from fitting import Start, as_batch, attribute_matrix, build_model, fit_from, last_item, metrics_at_10, read, windows
from fitting import held_out as last_held_out
from options import Attributes, Seeds, Threads

from headwater import config as configuration
from headwater import job
from headwater.config import Config, Targets
from headwater.evaluation.cases import HeldOut
from headwater.models import SequenceModel
from headwater.models.histories import left_padded
from headwater.models.ranker import Ranker
from headwater.training import facts, initial, readers
from headwater.training.train import target_weights
from headwater.training.validation import Cases

SHARES = [0.05, 0.2, 1.0]
LOW, HIGH = 1, 5
"""Event types that stand for a low and a high rating: `view` and `purchase`."""
HIGH_ONLY = Targets(view=0, search=0, click=0, add_to_cart=0, rating=0)

app = typer.Typer(add_completion=False)
Rows = dict[str, dict[float, list[float]]]
"""NDCG@10 of each seed, by name and share."""


@app.command()
def targets(
    data: Path,
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
    seeds: Seeds = 3,
    threads: Threads = 1,
    share: list[float] = typer.Option(SHARES, "--share", help="share of the users; repeat for several"),
) -> None:
    """Pre-train on all ratings, fine-tune on those of 4 and higher."""
    torch.set_num_threads(threads)
    settings = configuration.load(config, set_)
    length = settings.encoder_length
    users = read_ratings(data)
    n_items = max(int(user["item"].max()) for user in users)
    validation, test = (last_high_rating(users, place) for place in (2, 1))
    training_events = [{name: values[: high_ratings(user)[-2]] for name, values in user.items()} for user in users]
    everything = windows(training_events, length, settings.train.windows)
    print(f"{len(users):,} users, {n_items:,} items, {sum(len(user['item']) for user in users):,} ratings")
    finetuning = with_train(settings, learning_rate=settings.finetune.learning_rate)
    found: Rows = {}
    for seed in range(1, seeds + 1):
        start = initial.weights(facts.spec_of(settings, n_items), seed, everything["item"])
        learned = fitted(everything, start, None, with_train(settings, epochs=settings.train.pretrain_epochs), seed)
        record(found, "pre-trained, not fine-tuned", 0, learned, test, n_items)
        for part, chosen in shares(len(users), share, seed):
            rows = windows([training_events[user] for user in chosen], length, settings.train.windows)
            cases = subset(validation, chosen).arrays(length)
            known = initial.weights(facts.spec_of(settings, n_items), seed, rows["item"])
            before = (learned.state_dict(), learned.spec)
            arms: dict[str, tuple[Start, Config, Targets]] = {
                "from scratch, all ratings equal": (known, settings, Targets()),
                "from scratch, high ratings": (known, settings, HIGH_ONLY),
                "pre-trained, then all ratings equal": (before, finetuning, Targets()),
                "pre-trained, then high ratings": (before, finetuning, HIGH_ONLY),
            }
            for name, (first, chosen_settings, weights) in arms.items():
                record(found, name, part, fitted(rows, first, cases, chosen_settings, seed, weights), test, n_items)
    show(found, share)


@app.command()
def transfer(
    data: Path,
    attributes: Attributes,
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
    seeds: Seeds = 3,
    threads: Threads = 1,
    share: list[float] = typer.Option(SHARES, "--share", help="share of the users; repeat for several"),
) -> None:
    """Train on one half of a catalogue, then on the other, starting from the first one's encoder and feature vectors."""
    torch.set_num_threads(threads)
    settings = configuration.load(config, set_)
    length = settings.encoder_length
    sequences = read(data)
    described = attribute_matrix(attributes, sequences)
    first = np.random.default_rng(0).random(last_item(sequences) + 1) < 0.5
    (one, about_one), (two, about_two) = (half(sequences, described, mask) for mask in (first, ~first))
    n_items, test, validation = last_item(two), last_held_out(two, 1), last_held_out(two, 2)
    print(
        f"{len(one):,} users and {last_item(one):,} items in the first shop, {len(two):,} and {n_items:,} in the second"
    )
    found: Rows = {}
    for seed in range(1, seeds + 1):
        rows = training_rows(one, length)
        start = initial.weights(facts.spec_of(settings, last_item(one)), seed, rows, about_one)
        source = fitted(as_batch(rows), start, last_held_out(one, 2).arrays(length), settings, seed)
        for part, chosen in shares(len(two), share, seed):
            rows = training_rows([two[user] for user in chosen], length)
            cases = subset(validation, chosen).arrays(length)
            for name, first_weights in starts(settings, n_items, seed, rows, about_two, source):
                if name.endswith("not trained further"):
                    model = build_model(first_weights)
                else:
                    model = fitted(as_batch(rows), first_weights, cases, settings, seed)
                record(found, name, part, model, test, n_items)
    show(found, share)


def starts(
    config: Config, n_items: int, seed: int, rows: np.ndarray, described: Any, source: SequenceModel
) -> Iterator[tuple[str, Start]]:
    """The starting points of a training on the second catalogue, by name."""
    spec = facts.spec_of(config, n_items)
    yield "from scratch, random vectors", initial.weights(spec, seed, None, described)
    yield "from scratch, factors", initial.weights(spec, seed, rows, described)
    zero_vectors = initial.weights(spec, seed, None, described, source)
    rotated = initial.weights(spec, seed, rows, described, source)
    unrotated, _ = initial.weights(spec, seed, rows, described)
    yield "transferred, not trained further", zero_vectors
    yield "transferred, rotated factors, not trained further", rotated
    yield "transferred, zero vectors", zero_vectors
    yield "transferred, unrotated factors", ({**rotated[0], "item.weight": unrotated["item.weight"]}, rotated[1])
    yield "transferred, rotated factors", rotated


def with_train(config: Config, **changes: Any) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


def read_ratings(path: Path) -> list[dict[str, np.ndarray]]:
    """Each user's items (from 1) and event types, oldest first; users with fewer than three high ratings are left out."""
    table = pd.read_csv(path, sep="\t")
    table.columns = pd.Index([name.partition(":")[0] for name in table.columns])
    table = table.sort_values(["timestamp", "user_id", "item_id"], kind="stable")
    table["item"] = pd.factorize(table["item_id"])[0] + 1
    table["context"] = np.where(table["rating"] >= 4, HIGH, LOW)
    users = [{name: part[name].to_numpy() for name in ("item", "context")} for _, part in table.groupby("user_id")]
    return [user for user in users if (user["context"] == HIGH).sum() >= 3 and high_ratings(user)[-2] > 0]


def high_ratings(user: dict[str, np.ndarray]) -> np.ndarray:
    return np.flatnonzero(user["context"] == HIGH)


def last_high_rating(users: list[dict[str, np.ndarray]], place: int) -> HeldOut:
    """Each user's high rating ``place`` from the end (1 is the last) as the target, and all ratings before it as the history."""
    until = [high_ratings(user)[-place] for user in users]
    before = [user["item"][:end] for user, end in zip(users, until, strict=True)]
    return HeldOut(
        np.arange(len(users)),
        before,
        [user["context"][:end] for user, end in zip(users, until, strict=True)],
        [np.unique(items) for items in before],
        [user["item"][end : end + 1] for user, end in zip(users, until, strict=True)],
        np.array(until),
    )


def subset(held: HeldOut, chosen: np.ndarray) -> HeldOut:
    parts = (held.items, held.context, held.seen, held.targets)
    items, context, seen, targets = ([part[user] for user in chosen] for part in parts)
    return HeldOut(held.users[chosen], items, context, seen, targets, held.events_before[chosen])


def shares(users: int, wanted: list[float], seed: int) -> Iterator[tuple[float, np.ndarray]]:
    """A random subset of the users for each share; larger subsets contain the smaller ones."""
    order = np.random.default_rng(seed).permutation(users)
    for share in wanted:
        yield share, np.sort(order[: round(share * users)])


def half(sequences: list[np.ndarray], described: Any, kept: np.ndarray) -> tuple[list[np.ndarray], Any]:
    """The events and features of the ``kept`` items, numbered anew from 1; users with fewer than three events are left out."""
    kept = kept.copy()
    kept[0] = False
    number = np.cumsum(kept)
    shorter = [number[items[kept[items]]] for items in sequences]
    kept[0] = True
    return [items for items in shorter if len(items) >= 3], described[np.flatnonzero(kept)]


def training_rows(sequences: list[np.ndarray], length: int) -> np.ndarray:
    """Each user's events before the last two, if there are at least two, ``[users, length + 1]``."""
    rows = left_padded([items[:-2] for items in sequences], length + 1)
    return rows[(rows > 0).sum(1) >= 2]


def fitted(
    rows: readers.Batch, start: Start, cases: Cases | None, config: Config, seed: int, targets: Targets | None = None
) -> SequenceModel:
    """A model trained from given weights, as of its best epoch by ``cases``; without ``cases``, of the last epoch."""
    weighed = readers.weighted(lambda _: rows, target_weights(targets or config.train.targets))
    return fit_from(start, weighed(""), cases, config, seed)[0]


def record(found: Rows, name: str, share: float, model: SequenceModel, test: HeldOut, n_items: int) -> None:
    value = metrics_at_10(Ranker(model, {}, {}), test, n_items)["NDCG@10"]
    found.setdefault(name, {}).setdefault(share, []).append(value)
    print(f"{name}{f', {share:.0%}' if share else ''}: {value:.4f}", flush=True)


def show(found: Rows, shares: list[float]) -> None:
    """Print a line per name: mean and deviation over seeds for each share; a value without a share is repeated for all."""
    print(f"{'test NDCG@10':<52}" + "".join(f"{share:>16.0%}" for share in shares))
    for name, by_share in found.items():
        values = [np.array(by_share.get(share, by_share.get(0, []))) for share in shares]
        cells = (f"{each.mean():.4f} ± {each.std(ddof=min(1, len(each) - 1)):.4f}" for each in values)
        print(f"{name:<52}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    app()
