"""Top-N from factors, ours beside Spark ML's ALS, in one run on the same factors: seconds, CPU seconds, their ratios.

    make bench-scoring

Both jobs read nothing but the factors, rank every item for every user, exactly, and write user, item, rank and score as
Parquet, in one session with Java's optimising compiler. CPU seconds are those of Python, its workers and the JVM together. What
`score_topn` as a whole takes beside ALS: `score_job.py`. Sizes: HEADWATER_BENCH_USERS, _ITEMS and _ROUNDS; what Spark ML takes is
linear in users, so that a part of them says enough.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import als_job
import numpy as np
import pandas as pd
import psutil
import torch
from als_job import N
from pyspark.sql import SparkSession

from headwater.scoring.kernel import top_n

USERS = int(os.environ.get("HEADWATER_BENCH_USERS", "20000"))
ITEMS = int(os.environ.get("HEADWATER_BENCH_ITEMS", "20000"))
ROUNDS = int(os.environ.get("HEADWATER_BENCH_ROUNDS", "3"))
DIM = 64


def main() -> None:
    spark = als_job.optimised("bench")
    rng = np.random.default_rng(0)
    users = rng.normal(size=(USERS, DIM)).astype(np.float32)
    items = rng.normal(size=(ITEMS, DIM)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/items.npy", items)
        als_job.factors(spark, users).write.parquet(f"{folder}/users")
        als_job.save(spark, users, items, f"{folder}/als")
        seconds: dict[str, list[tuple[float, float]]] = {"headwater": [], "Spark ML ALS": [], "bare product": []}
        for k in range(ROUNDS):  # taken in turns, so that a noisy moment strikes all of them
            seconds["headwater"].append(timed(ours, spark, folder, f"{folder}/ours{k}"))
            seconds["Spark ML ALS"].append(timed(peer, folder, f"{folder}/peer{k}"))
            seconds["bare product"].append(timed(product, users, items))
        same = agreement(spark, f"{folder}/ours0", f"{folder}/peer0")
    best = {name: [min(values) for values in zip(*taken, strict=True)] for name, taken in seconds.items()}
    print(f"{USERS} users × {ITEMS} items, d = {DIM}, N = {N}; best of {ROUNDS}; lists that agree: {same:.2%}")
    for name, (wall, used) in best.items():
        shares = wall / best["headwater"][0], used / best["headwater"][1]
        print(f"{name:<14} {wall:8.2f} s {shares[0]:6.2f} ×   {used:8.2f} s of CPU {shares[1]:6.2f} × headwater")


def ours(spark: SparkSession, folder: str, out: str) -> None:
    def score(frames):
        torch.set_num_threads(1)
        matrix = torch.from_numpy(np.load(f"{folder}/items.npy", mmap_mode="c"))
        for frame in frames:
            vectors = torch.from_numpy(np.stack(frame["features"].to_numpy()))
            scores, best = top_n(vectors, matrix, N)
            yield pd.DataFrame(
                {
                    "user": np.repeat(frame["id"].to_numpy(), N),
                    "rank": np.tile(np.arange(1, N + 1, dtype=np.int32), len(frame)),
                    "item": best.numpy().ravel().astype(np.int32),
                    "score": scores.numpy().ravel(),
                }
            )

    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "1024")
    rows = spark.read.parquet(f"{folder}/users").repartition(spark.sparkContext.defaultParallelism)
    rows.mapInPandas(score, "user int, rank int, item int, score float").write.parquet(out)


def peer(folder: str, out: str) -> None:
    als_job.lists(f"{folder}/als").write.parquet(out)


def product(users: np.ndarray, items: np.ndarray) -> None:
    """The floor: the matrix product alone, on all cores, nothing kept."""
    left, right = torch.from_numpy(users), torch.from_numpy(items)
    for start in range(0, len(left), 1024):
        left[start : start + 1024] @ right.T


def timed(call: Callable[..., None], *args: Any) -> tuple[float, float]:
    """Wall-clock seconds of a call, and CPU seconds of all processes of the run."""
    started, before = time.perf_counter(), cpu_seconds()
    call(*args)
    return time.perf_counter() - started, cpu_seconds() - before


def cpu_seconds() -> float:
    me = psutil.Process()
    return sum(sum(one.cpu_times()[:4]) for one in (me, *me.children(recursive=True)))


def agreement(spark: SparkSession, ours_path: str, peer_path: str) -> float:
    """Share of (user, item) rows that both results hold."""
    left, right = (spark.read.parquet(str(Path(path))).select("user", "item") for path in (ours_path, peer_path))
    return left.join(right, ["user", "item"]).count() / left.count()


if __name__ == "__main__":
    main()
