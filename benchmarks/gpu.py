"""Speed of a GPU: the Top-N kernel compared with the bare matrix product, whole lists, and training steps.

    python benchmarks/gpu.py [--size 65536x100000] [--tile 4096x131072] [--sequences 22363]

Without a GPU it runs on the CPU, with fewer users. Random vectors of d = 64, lists of 10. The kernel is compared with the bare
product in the same tiles, whose results are discarded, in float32 and in bfloat16, and with the naive way, ``topk`` of whole
rows of scores. Training: sequences of Zipf-distributed items, 6 predicted events in the median, the layers of
``conf/experiments/beauty.yaml``, full softmax and 2,048 negatives, with and without mixed precision; the first epoch is a
warm-up, the second is timed. Lists: the same model, untrained, blended with item transitions and recency, with variety and
reasons, as a worker of ``score_topn`` makes them for a batch of users. No Spark.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import typer
from fitting import DEVICE, as_batch, build_model
from options import start
from torch import Tensor

from headwater import config as configuration
from headwater.config import Config
from headwater.models import transitions
from headwater.models.ranker import Ranker
from headwater.scoring import kernel
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.scorer import Scorer
from headwater.training import facts, initial, loop, optimizers, readers
from headwater.training.settings import Group, Settings

GPU = DEVICE.type == "cuda"
SIZES = ["131072x12000", "65536x100000", "16384x1000000"] if GPU else ["4096x12000", "1024x100000"]
DIM, N = 64, 10
WHOLE_ROWS = 2_048
"""Users whose whole rows of scores are in memory at once for ``topk``: 8 GB at a million items."""
RECIPE = Path(__file__).resolve().parents[1] / "conf/experiments/beauty.yaml"
SEQUENCES, ITEMS = 22_363, 12_101
LIST_BATCHES = (1_024, 8_192)
"""Numbers of users whose lists are made in one batch."""


def main(
    size: list[str] = typer.Option(SIZES, "--size", help="users x items"),
    tile: list[str] = typer.Option(
        ["x".join(map(str, kernel.TILES[DEVICE.type]))], "--tile", help="users x items of a tile"
    ),
    count: int = typer.Option(SEQUENCES, "--sequences", help="number of sequences to train on; 0: no training"),
) -> None:
    name = torch.cuda.get_device_name() if GPU else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}; users per second, and the ratio to the bare product in float32")
    for users, items in map(numbers, size):
        for batch, width in map(numbers, tile):
            measure_kernel(users, items, batch, width)
    print("\nlists per second in one process, reasons included")
    for users in LIST_BATCHES:
        measure_lists(users)
    if not count:
        return
    print("\nsequences per second in the second epoch, and peak memory on the device")
    for options in ({}, {"kind": "sampled_softmax", "negatives": 2_048}):
        for rows in (128, 1_024):
            for mixed in (True, False) if GPU else (False,):
                measure_training(options, rows, mixed, count)


def numbers(text: str) -> tuple[int, int]:
    users, items = text.split("x")
    return int(users), int(items)


def measure_kernel(n_users: int, n_items: int, batch: int, tile: int) -> None:
    draws = torch.Generator(DEVICE).manual_seed(0)
    users, items = (torch.randn(n, DIM, generator=draws, device=DEVICE) for n in (n_users, n_items))
    kernel.TILES[DEVICE.type] = (batch, tile)

    def product(users: Tensor, items: Tensor) -> None:
        buffer = torch.empty(batch, tile, device=DEVICE, dtype=users.dtype)
        for some in users.split(batch):
            for part in items.split(tile):
                torch.mm(some, part.T, out=buffer[: len(some), : len(part)])

    def whole_rows() -> Tensor:
        return torch.cat([(some @ items.T).topk(N).indices for some in users.split(WHOLE_ROWS)])

    calls: dict[str, Callable[[], object]] = {
        "product": lambda: product(users, items),
        "product bf16": lambda: product(users.bfloat16(), items.bfloat16()),
        "top_n": lambda: kernel.top_n(users, items, N),
        "rescored": lambda: kernel.top_n_rescored(users, items, N),
        "topk": whole_rows,
    }
    elapsed = {name: seconds(call) for name, call in calls.items()}
    cells = (f"{name} {n_users / each:>11,.0f} {elapsed['product'] / each:>5.2f} ×" for name, each in elapsed.items())
    print(f"{n_users:,} × {n_items:,} in {batch:,} × {tile:,}: ".ljust(46) + "   ".join(cells), flush=True)


def seconds(call: Callable[[], object], rounds: int = 3) -> float:
    """The fastest of ``rounds`` calls, after one that warms up."""
    elapsed = []
    for _ in range(rounds + 1):
        wait()
        started = time.perf_counter()
        call()
        wait()
        elapsed.append(time.perf_counter() - started)
    return min(elapsed[1:])


def wait() -> None:
    if GPU:
        torch.cuda.synchronize()


def measure_lists(users: int) -> None:
    config = configuration.load([RECIPE], [])
    every = sequences(config, SEQUENCES)[:, 1:]
    rows = every[:users]
    weights, spec = initial.weights(facts.spec_of(config, ITEMS), 1, None, None)
    parts = {"transitions": transitions.count(every, ITEMS)}
    ranker = Ranker(build_model((weights, spec)), {"blend": {"transitions": 1.0, "recency": 0.1}}, parts)
    popular = np.bincount(every.ravel(), minlength=ITEMS + 1) * 1.0
    nothing = np.zeros((ITEMS + 1, 1), np.int32), np.zeros(ITEMS + 1), np.array([""])
    scorer = Scorer(ranker, Catalogue(np.arange(ITEMS + 1) > 0, popular, *nothing), config.topn)
    histories = [row[row > 0] for row in rows]
    columns = {
        "user_id": [f"u{user}" for user in range(users)],
        "item_idx": histories,
        "event_type": [np.array(["click"] * len(items), dtype=object) for items in histories],
        "at": [np.arange(len(items)) * 3_600.0 for items in histories],
        "value": [np.full(len(items), np.nan) for items in histories],
        "seen_items": [np.unique(items).astype(np.int32) for items in histories],
    }
    frame = pd.DataFrame(columns)
    print(f"{users:,} users at once: {users / seconds(lambda: scorer.lists(frame)):,.0f}", flush=True)


def measure_training(loss: dict[str, object], rows: int, mixed: bool, count: int) -> None:
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    config = configuration.load([RECIPE], [])
    train = config.train.model_copy(
        update={
            "loss": config.train.loss.model_copy(update=loss),
            "batch_size": rows,
            "mixed_precision": mixed,
        }
    )
    config = config.model_copy(update={"train": train})
    batch = as_batch(sequences(config, count))
    start = initial.weights(facts.spec_of(config, ITEMS), 1, None, None)
    model = build_model(start).to(DEVICE).train()
    settings, group = Settings.of(config.train, ITEMS, steps=0), Group.of_one(DEVICE)
    optimizer = optimizers.Optimizer(model, settings, group)
    counts = torch.from_numpy(readers.target_counts([""], lambda _: batch, ITEMS))
    data = loop.Data(lambda epoch: readers.epoch([""], lambda _: batch, rows, 1, epoch), counts)
    for epoch in (1, 2):
        wait()
        started = time.perf_counter()
        loop.run_epoch(model, optimizer, data, epoch)
        wait()
        elapsed = time.perf_counter() - started
    memory = f", {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if GPU else ""
    name = f"{settings.loss.kind}, batches of {rows:,}, {'bfloat16' if mixed and GPU else 'float32'}"
    print(f"{name:<52}{count / elapsed:>10,.0f}{memory}", flush=True)


def sequences(config: Config, count: int) -> np.ndarray:
    """Synthetic sequences, int ``[count, max_length + 1]``, left-padded with 0."""
    rng = np.random.default_rng(0)
    length = config.encoder_length + 1
    lengths = np.minimum(3 + rng.geometric(0.2, count), length)
    items = rng.permutation(ITEMS)[np.minimum(rng.zipf(1.2, (count, length)), ITEMS) - 1] + 1
    return np.where(np.arange(length) >= length - lengths[:, None], items, 0)


if __name__ == "__main__":
    start(main)
