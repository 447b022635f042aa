"""Cost of training at a million items: a step that updates the whole item table, and one that updates only the rows it read.

    OMP_NUM_THREADS=1 python benchmarks/big_catalogue.py

A SASRec of d = 64 with a sampled softmax over 100,000 synthetic users and 1,000,000 items; each user walks through a
neighbourhood of items, and popular neighbourhoods are more frequent. Each way trains in its own process, with the library's
epoch loop, validation, checkpoints and, with ``--average``, a moving average. It prints for each epoch the CPU time per step
and the peak memory of the process (RSS), data included. ``factors`` measures what ``model.initial: cooccurrence`` costs before
the first step. Sizes: HEADWATER_BENCH_USERS, HEADWATER_BENCH_ITEMS. No Spark.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
import typer
from options import start

from headwater.config import Loss
from headwater.models import ModelSpec, SequenceModel, build, factors
from headwater.training import loop, readers
from headwater.training.settings import Group, Settings
from headwater.training.validation import Cases, mean_ndcg

USERS = int(os.environ.get("HEADWATER_BENCH_USERS", "100000"))
ITEMS = int(os.environ.get("HEADWATER_BENCH_ITEMS", "1000000"))
LENGTH, BATCH, VALIDATED, SEED = 50, 128, 500, 1
SPEC = ModelSpec("sasrec", n_items=ITEMS, max_length=LENGTH, dim=64)
WAYS = ["rows", "whole table", "factors"]


def main(
    ways: list[str] = typer.Option(WAYS, "--way", help="what to measure; repeat for several"),
    epochs: int = typer.Option(3, "--epochs"),
    steps: int = typer.Option(100, "--steps", help="maximum number of steps per epoch; 0: all"),
    average: float = typer.Option(0.0, "--average", help="train.average"),
) -> None:
    print(f"{USERS:,} users, {ITEMS:,} items, d = {SPEC.dim}, batches of {BATCH}", flush=True)
    context = multiprocessing.get_context("spawn")
    for way in ways:
        process = context.Process(target=measure, args=(way, epochs, steps, average))
        process.start()
        process.join()


def measure(way: str, epochs: int, steps: int, average: float) -> None:
    torch.set_num_threads(1)
    rows, memory = histories(), Memory()
    print(f"{way}: data and imports take {memory.peak():.2f} GiB", flush=True)
    if way == "factors":
        started = time.process_time()
        factors.item_vectors(rows, ITEMS, SPEC.dim, SEED)
        print(f"{way}: {time.process_time() - started:.0f} s of CPU, {memory.peak():.2f} GiB", flush=True)
    else:
        train(way, rows, memory, epochs, steps, average)


def train(way: str, rows: np.ndarray, memory: Memory, epochs: int, steps: int, average: float) -> None:
    batch = {"item": rows, "context": (rows > 0).astype(np.int64), "weight": np.ones(rows.shape, np.float32)}
    cases, cpu, steps_run = held_out(rows[:VALIDATED]), [0.0, 0.0, 0.0], [0]
    settings = Settings(
        epochs=epochs,
        learning_rate=1e-3,
        loss=Loss(kind="sampled_softmax"),
        weight_decay=0.0,
        clip_norm=1.0,
        average=average,
        patience=epochs,
        seed=SEED,
        mixed_precision=False,
        fingerprint="",
        sparse_items=way == "rows",
    )

    def batches(epoch: int) -> Iterator[readers.Batch]:
        whole = readers.epoch([""], lambda _: batch, BATCH, SEED, epoch)
        steps_run[0], cpu[0] = 0, time.process_time()
        for each in itertools.islice(whole, steps or None):
            steps_run[0] += 1
            yield each

    def validate(model: SequenceModel) -> float:
        cpu[1] = time.process_time()
        found = mean_ndcg(model, cases, torch.device("cpu"))
        cpu[2] = time.process_time()
        return found

    def report() -> None:
        print(
            f"{way}: {steps_run[0]} steps, {1000 * (cpu[1] - cpu[0]) / steps_run[0]:.0f} ms of CPU each; "
            f"validation on {VALIDATED} users {cpu[2] - cpu[1]:.1f} s, "
            f"checkpoint {time.process_time() - cpu[2]:.1f} s; {memory.peak():.2f} GiB",
            flush=True,
        )

    torch.manual_seed(SEED)
    model, group = build(SPEC), Group.of_one(torch.device("cpu"))
    data = loop.Data(batches, torch.zeros(ITEMS + 1), validate)
    with tempfile.TemporaryDirectory() as folder:
        loop.fit(model, data, settings, group, Path(folder), after_checkpoint=report)


def histories() -> np.ndarray:
    """Int64 ``[users, LENGTH + 1]``, left-padded with 0: 6 to 51 events per user, half of the users in a tenth of the items."""
    draws = np.random.default_rng(SEED)
    start = (ITEMS * draws.random((USERS, 1)) ** 3.3).astype(np.int64)
    walked = start + draws.integers(1, 20, (USERS, LENGTH + 1)).cumsum(axis=1)
    lengths = np.clip(draws.geometric(1 / 15, (USERS, 1)) + 5, 6, LENGTH + 1)
    return np.where(np.arange(LENGTH + 1) >= LENGTH + 1 - lengths, walked % ITEMS + 1, 0)


def held_out(rows: np.ndarray) -> Cases:
    """Cases whose target is the last event of each row. Training sees it too, because only the cost is measured."""
    each = np.arange(len(rows) + 1)
    return Cases(rows[:, :-1], (rows[:, :-1] > 0).astype(np.int64), each, rows[:, -2], each, rows[:, -1])


class Memory:
    """Watches the memory of this process; ``peak`` returns the peak RSS since its last call, in GiB."""

    def __init__(self) -> None:
        self._peak = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._peak = max(self._peak, psutil.Process().memory_info().rss)
            time.sleep(0.05)

    def peak(self) -> float:
        time.sleep(0.1)
        found, self._peak = self._peak, 0
        return found / 2**30


if __name__ == "__main__":
    start(main)
