"""Training time to the same validation NDCG@10: ours, RecTools' and RePlay's SASRec, in one run; our engine and a bare loop.

    make bench-training DATA=Beauty.txt.gz ATTRIBUTES=Beauty_item2attributes.json

Data and split are those of `leave_one_out.py`. Contestants run one after another on the same machine with the same number of
threads and the same limit of CPU time; importing packages, and validation, which is the same code for all, are not counted. The
target is the best NDCG@10 of any peer. A bare loop over the same batches, made before the clock starts, shows the overhead of
our engine: the same model, loss, clipping, optimiser and average, nothing else.
"""

from __future__ import annotations

import copy
import json
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # an optimiser would import it in its first step
import typer
from fitting import as_batch, attribute_matrix, fit, held_out, last_item, read, validation_ndcg
from options import MaybeAttributes, Threads, start
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from watch import Watch

from headwater import config as configuration
from headwater.config import Config
from headwater.models.histories import left_padded
from headwater.models.losses import Objective
from headwater.training import readers
from headwater.training.validation import Cases, ndcg

ROOT = Path(__file__).resolve().parent
LENGTH = 50
SIZE = {"length": LENGTH, "dim": 128, "layers": 2, "heads": 2, "dropout": 0.2, "batch": 128}
"""The settings of the peers, and of our model that is like them."""
LIKE_PEERS = [
    "model.kind=sasrec",
    f"sequence.max_length={LENGTH}",
    f"model.dim={SIZE['dim']}",
    f"model.layers={SIZE['layers']}",
    f"model.heads={SIZE['heads']}",
    f"model.dropout={SIZE['dropout']}",
    f"train.batch_size={SIZE['batch']}",
    "model.feed_forward=1",
    "model.initial=random",
    "train.loss={kind: sampled_softmax, negatives: 256, correction: false}",
]
RECIPES = {
    "ours, 2,048": ["train.loss={kind: sampled_softmax, negatives: 2048, correction: false}"],
    "ours, like peers": LIKE_PEERS,
    "ours, softmax": [],
}
"""Overrides of our recipe; ``LIKE_PEERS`` overrides the defaults instead."""
PEERS = ["RePlay, sampled", "RecTools, gBCE", "RecTools, softmax"]
ROUNDS = 3
"""Epochs of our engine and of the bare loop, in turns. The first is not counted; of the others the fastest counts."""


@dataclass(frozen=True)
class Moment:
    """A contestant's work and validation NDCG@10 (``quality``) after some seconds of training."""

    wall: float
    cpu: float
    sequences: int
    events: int
    quality: float


class Finished(Exception):
    """A contestant has reached the target or used up its seconds."""


def main(
    data: Path,
    peers: Path = typer.Option(..., "--peers", help="Python interpreter of the peers' environment"),
    config: Path = typer.Option(ROOT.parent / "conf/experiments/beauty.yaml", "--config", help="our recipe"),
    attributes: MaybeAttributes = None,
    minutes: float = typer.Option(5.0, "--minutes", help="CPU minutes for each contestant"),
    every: float = typer.Option(30.0, "--every", help="CPU seconds between evaluations of a peer"),
    only: list[str] = typer.Option(PEERS, "--only", help="peers to train; repeat for several"),
    threads: Threads = 1,
    seed: int = typer.Option(1, "--seed"),
) -> None:
    torch.set_num_threads(threads)
    sequences = [items for items in read(data) if len(items) >= 4]  # leaves at least two items to train on
    cases = held_out(sequences, 2).arrays(LENGTH)
    print(f"{len(sequences):,} users, {last_item(sequences):,} items, {threads} threads, {minutes:g} CPU minutes each")
    settings = SIZE | {"seconds": 60 * minutes, "every": every, "threads": threads, "seed": seed}
    found = {name: train_peer(peers, name, sequences, cases, settings) for name in only}
    target = max((moment.quality for moments in found.values() for moment in moments), default=1.0)
    described = attribute_matrix(attributes, sequences) if attributes else None
    plain = ["model.hybrid=false"] + ([] if attributes else ["model.features=[]"])
    recipes = {
        name: configuration.load([], more) if more is LIKE_PEERS else configuration.load([config], plain + more)
        for name, more in RECIPES.items()
    }
    for name, recipe in recipes.items():
        found[name] = train_ours(name, sequences, described, recipe, seed, cases, 60 * minutes, target)
    print_table(found, target, only)
    for name, recipe in recipes.items():
        engine, bare_loop = engine_and_bare_loop(sequences, described, recipe, seed, cases)
        print(
            f"{name}: {engine:,.0f} sequences per CPU second, bare loop {bare_loop:,.0f}: {engine / bare_loop:.0%}",
            flush=True,
        )


def train_peer(
    python: Path, name: str, sequences: list[np.ndarray], cases: Cases, settings: dict[str, Any]
) -> list[Moment]:
    """Train a peer in its own environment, then evaluate the vectors that it wrote."""
    history = [items[:-2] for items in sequences]
    with tempfile.TemporaryDirectory() as folder:
        np.savez(
            Path(folder) / "sequences.npz",
            item=np.concatenate(history),
            start=np.cumsum([0, *map(len, history)]),
            n_items=last_item(sequences),
        )
        command = [str(python), str(ROOT / "training_peers.py"), name, folder, json.dumps(settings)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"{name}: {ended.stderr.strip().splitlines()[-1]}")
        written = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        return [
            print_moment(name, Moment(**moment, quality=ndcg_of_file(Path(vectors), cases)))
            for moment, vectors in map(split_vectors, written)
        ]


def split_vectors(written: dict[str, Any]) -> tuple[dict[str, Any], str]:
    return {name: value for name, value in written.items() if name != "vectors"}, written["vectors"]


def ndcg_of_file(path: Path, cases: Cases, batch: int = 512) -> float:
    """NDCG@10 of user and item vectors in a file, as in ``mean_ndcg``. Items that a peer does not know are NaN and rank last."""
    with np.load(path) as arrays:
        users, items = (torch.from_numpy(arrays[name]) for name in ("users", "items"))
    total = 0.0
    for rows in np.split(np.arange(len(cases)), range(batch, len(cases), batch)):
        scores = users[rows] @ items.T
        scores.masked_fill_(scores.isnan(), -torch.inf)
        cases.hide_seen(scores, rows)
        total += float(ndcg(scores, cases.target_places(rows, scores.shape[1]), cases.ideal(rows)).sum())
    return total / len(cases)


def training_rows(sequences: list[np.ndarray], config: Config) -> np.ndarray:
    return left_padded([items[:-2] for items in sequences], config.encoder_length + 1)


def train_ours(
    name: str,
    sequences: list[np.ndarray],
    described: Any,
    config: Config,
    seed: int,
    cases: Cases,
    seconds: float,
    target: float,
) -> list[Moment]:
    """Train ours until it reaches the target or has used up its seconds; the time of its initial factors is counted."""
    rows = training_rows(sequences, config)
    events = int((rows[:, 1:] * rows[:, :-1] > 0).sum())
    moments: list[Moment] = []
    watch = Watch()

    def validate(model: Any, cases: Cases) -> float:
        wall, cpu, epochs = watch.wall, watch.cpu, len(moments) + 1
        with watch.paused():
            quality = validation_ndcg(model, cases)
        moments.append(print_moment(name, Moment(wall, cpu, epochs * len(rows), epochs * events, quality)))
        if cpu > seconds or quality >= target:
            raise Finished
        return quality

    with suppress(Finished):
        fit(as_batch(rows), cases, described, last_item(sequences), config, seed, validate)
    return moments


def print_moment(name: str, moment: Moment) -> Moment:
    print(
        f"{name:<20}{moment.cpu:>7.0f} CPU s {moment.wall:>7.0f} s {moment.sequences:>10,} sequences {moment.quality:.4f}",
        flush=True,
    )
    return moment


def print_table(found: dict[str, list[Moment]], target: float, peers: list[str]) -> None:
    """Print each contestant's time relative to the peer that set the target, and its rate relative to the fastest peer."""
    reached = {name: next((m for m in moments if m.quality >= target), None) for name, moments in found.items()}
    best = next((reached[name] for name in peers if reached[name]), None)
    rate = max((found[name][-1].sequences / found[name][-1].cpu for name in peers), default=float("nan"))
    print(f"\ntarget: validation NDCG@10 {target:.4f}")
    heads = ("to target, CPU s", "wall s", "× best", "sequences/s", "× fastest", "events/s", "NDCG@10")
    print(f"{'':<20}" + "".join(f"{head:>18}" for head in heads))
    for name, moments in found.items():
        last, passed = moments[-1], reached[name]
        speed = last.sequences / last.cpu
        cells = (
            f"{passed.cpu:.0f}" if passed else f"not in {last.cpu:.0f}",
            f"{passed.wall:.0f}" if passed else f"not in {last.wall:.0f}",
            f"{passed.cpu / best.cpu:.2f}" if passed and best else "–",
            f"{speed:,.0f}",
            f"{speed / rate:.2f}",
            f"{last.events / last.cpu:,.0f}",
            f"{max(moment.quality for moment in moments):.4f}",
        )
        print(f"{name:<20}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def engine_and_bare_loop(
    sequences: list[np.ndarray], described: Any, config: Config, seed: int, cases: Cases
) -> tuple[float, float]:
    """Sequences per CPU second: of the engine, readers and checkpoints included, and of a bare loop over tensors."""
    rows, n_items = training_rows(sequences, config), last_item(sequences)
    batch = as_batch(rows)
    batches = [
        [torch.from_numpy(part[name]) for name in ("item", "context", "weight")]
        for part in readers.epoch([""], lambda _: batch, config.train.batch_size, seed, 1)
    ]
    counts = torch.from_numpy(readers.target_counts([""], lambda _: batch, n_items))
    engine: list[float] = []
    bare_loop: list[float] = []
    watch = Watch()

    def validate(model: Any, _: Cases) -> float:
        nonlocal watch
        engine.append(watch.cpu)
        model = copy.deepcopy(model).requires_grad_()  # an average's weights have requires_grad off
        watch = Watch()
        bare(model, batches, config, seed, counts)
        bare_loop.append(watch.cpu)
        watch = Watch()
        return float(len(engine))

    train = config.train.model_copy(update={"epochs": ROUNDS})
    fit(as_batch(rows), cases, described, n_items, config.model_copy(update={"train": train}), seed, validate)
    return len(rows) / min(engine[1:]), len(rows) / min(bare_loop[1:])


def bare(model: Any, batches: list[list[torch.Tensor]], config: Config, seed: int, counts: torch.Tensor) -> None:
    """One epoch with the same model, loss, clipping, optimiser and average, and nothing else."""
    settings = config.train
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.average)) if settings.average else None
    loss = settings.loss.of_catalogue(len(counts) - 1)
    objective = Objective(loss, counts, torch.Generator().manual_seed(seed))
    model.train()
    for place in torch.randperm(len(batches)):
        optimizer.zero_grad()
        total, weight = model(*batches[place], objective)
        (total / weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        if averaged is not None:
            averaged.update_parameters(model)


if __name__ == "__main__":
    start(main)
