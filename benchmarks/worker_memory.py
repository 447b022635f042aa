"""Private memory of a scoring worker while another worker has the same model open. Needs no Spark.

    python benchmarks/worker_memory.py

A SASRec of d = 64 over a million items, opened from its file by two processes, like Spark's Python workers; each makes
complete lists for a few batches of users. Prints each worker's peak private memory in MiB, and the memory that it maps from files.
Private is what is not mapped from a file: pages of the model's file count as unshared until the other worker reads them too, so
a unique set size would depend on who is ahead. Size: HEADWATER_BENCH_ITEMS.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch

from headwater.config import Topn
from headwater.models import ModelSpec, build
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.scorer import Scorer
from headwater.training import artifact

ITEMS = int(os.environ.get("HEADWATER_BENCH_ITEMS", "1000000"))
USERS, BATCHES, DIM, LENGTH, WORKERS = 128, 2, 64, 50, 2


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        spec = ModelSpec("sasrec", n_items=ITEMS, max_length=LENGTH, dim=DIM, layers=2, heads=2)
        torch.manual_seed(1)
        artifact.save(Path(folder) / "model", build(spec).state_dict(), spec, {})
        context = multiprocessing.get_context("spawn")
        both, answers = context.Barrier(WORKERS), context.Queue()
        workers = [context.Process(target=work, args=(folder, both, answers)) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        found = [answers.get() for _ in workers]
        for worker in workers:
            worker.join()
    for before, peak, mapped in found:
        print(f"{ITEMS:,} items, d = {DIM}: a worker's private memory: {peak:.0f} MiB at peak, {before:.0f} before the model; "
              f"mapped {mapped:.0f} MiB")  # fmt: skip


def work(folder: str, both, answers) -> None:
    torch.set_num_threads(1)
    before, peak, done = private_mib(), [0.0], threading.Event()
    watcher = threading.Thread(target=watch, args=(peak, done))
    both.wait()
    watcher.start()
    scorer = Scorer(artifact.ranker(Path(folder) / "model"), catalogue(), Topn())
    for batch in range(BATCHES):
        scorer.lists(users(batch))
    peak[0] = max(peak[0], private_mib())
    done.set()
    watcher.join()
    answers.put((before, peak[0], psutil.Process().memory_info().shared / 2**20))
    both.wait()


def watch(peak: list[float], done: threading.Event) -> None:
    while not done.wait(0.2):
        peak[0] = max(peak[0], private_mib())


def private_mib() -> float:
    held = psutil.Process().memory_info()
    return (held.rss - held.shared) / 2**20


def catalogue() -> Catalogue:
    size = ITEMS + 1
    return Catalogue(
        available=np.arange(size) > 0,
        popular=np.arange(size, dtype=np.float64),
        categories=np.ones((size, 1), dtype=np.int32),
        first_seen=np.zeros(size),
        names=np.array(["", "all"]),
        until=0.0,
    )


def users(batch: int) -> pd.DataFrame:
    draws = np.random.default_rng(batch)
    histories = [draws.integers(1, ITEMS + 1, draws.integers(2, LENGTH)) for _ in range(USERS)]
    return pd.DataFrame(
        {
            "user_id": [f"u{k}" for k in range(USERS)],
            "item_idx": histories,
            "event_type": [["view"] * len(history) for history in histories],
            "at": [[0.0] * len(history) for history in histories],
            "value": [[np.nan] * len(history) for history in histories],
            "seen_items": [np.unique(history) for history in histories],
        }
    )


if __name__ == "__main__":
    main()
