"""Top-N from factors, ours beside Spark ML's ALS, in one run on the same factors: seconds, CPU seconds, their ratios.

    make bench-scoring

Java has its best compiler here, which a short local job of ours leaves out: Spark ML's products are made by it. Both jobs
read nothing but the factors, rank every item for every user, exactly, and write user, item, rank and score as
Parquet. Spark ML's model is built around the same factors (`ALSModel.recommendForAllUsers`, its documented way).
CPU seconds are those of Python, its workers and the JVM together. Sizes: HEADWATER_BENCH_USERS, _ITEMS and _ROUNDS; what
Spark ML takes is linear in users, so that a part of them says enough.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame, SparkSession

from headwater.config import Config
from headwater.scoring.kernel import top_n
from headwater.spark import session

USERS = int(os.environ.get("HEADWATER_BENCH_USERS", "20000"))
ITEMS = int(os.environ.get("HEADWATER_BENCH_ITEMS", "20000"))
ROUNDS = int(os.environ.get("HEADWATER_BENCH_ROUNDS", "3"))
DIM, N = 64, 10


def main() -> None:
    spark = session(Config(spark={"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=4"}), "bench")
    rng = np.random.default_rng(0)
    users = rng.normal(size=(USERS, DIM)).astype(np.float32)
    items = rng.normal(size=(ITEMS, DIM)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/items.npy", items)
        factors(spark, users).write.parquet(f"{folder}/users")
        factors(spark, items).write.parquet(f"{folder}/items")
        save_als(spark, folder)
        seconds: dict[str, list[tuple[float, float]]] = {"headwater": [], "Spark ML ALS": [], "bare product": []}
        for k in range(ROUNDS):  # taken in turns, so that a noisy moment strikes all of them
            seconds["headwater"].append(timed(lambda k=k: ours(spark, folder, f"{folder}/ours{k}")))
            seconds["Spark ML ALS"].append(timed(lambda k=k: peer(spark, folder, f"{folder}/peer{k}")))
            seconds["bare product"].append(timed(lambda: product(users, items)))
        same = agreement(spark, f"{folder}/ours0", f"{folder}/peer0")
    best = {name: [min(values) for values in zip(*taken, strict=True)] for name, taken in seconds.items()}
    print(f"{USERS} users × {ITEMS} items, d = {DIM}, N = {N}; best of {ROUNDS}; lists that agree: {same:.2%}")
    for name, (wall, used) in best.items():
        shares = wall / best["headwater"][0], used / best["headwater"][1]
        print(f"{name:<14} {wall:8.2f} s {shares[0]:6.2f} ×   {used:8.2f} s of CPU {shares[1]:6.2f} × headwater")


def factors(spark: SparkSession, vectors: np.ndarray) -> DataFrame:
    frame = pd.DataFrame({"id": np.arange(len(vectors), dtype=np.int32), "features": list(vectors)})
    return spark.createDataFrame(frame, "id int, features array<float>")


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


def peer(spark: SparkSession, folder: str, out: str) -> None:
    model = ALSModel.load(f"{folder}/als").setUserCol("user").setItemCol("item")
    lists = model.recommendForAllUsers(N).selectExpr("user", "posexplode(recommendations) AS (place, row)")
    lists.selectExpr("user", "place + 1 AS rank", "row.item", "row.rating AS score").write.parquet(out)


def save_als(spark: SparkSession, folder: str) -> None:
    """A saved ALS model that holds our factors: its constructor is private, its files are plain Parquet."""
    one = spark.createDataFrame([(0, 0, 1.0)], "user int, item int, rating float")
    ALS(rank=DIM, maxIter=0).fit(one).save(f"{folder}/als")
    for ours_name, theirs in (("users", "userFactors"), ("items", "itemFactors")):
        spark.read.parquet(f"{folder}/{ours_name}").write.mode("overwrite").parquet(f"{folder}/als/{theirs}")


def product(users: np.ndarray, items: np.ndarray) -> None:
    """The floor: the matrix product alone, on all cores, nothing kept."""
    left, right = torch.from_numpy(users), torch.from_numpy(items)
    for start in range(0, len(left), 1024):
        left[start : start + 1024] @ right.T


def timed(call) -> tuple[float, float]:
    """Seconds that pass, and that all processes of the run use."""
    started, before = time.perf_counter(), cpu_seconds()
    call()
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
