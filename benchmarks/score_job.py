"""The scoring job from end to end on a made-up site: all users, then a thousand changed ones, beside the kernel alone.

    python benchmarks/score_job.py

Sequences of 1 to 20 events (median 6) over a catalogue with categories; an untrained SASRec of d = 64, blended with
transitions counted from the sequences. Those who changed are chosen by hash among all users, so that their rows lie in all files.
Says seconds, users a second, and the most memory that a Python worker held. Sizes: HEADWATER_BENCH_USERS, _ITEMS, _CHANGED;
_MARKED=1 sets `tables.deletion_vectors`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import torch
import yaml
from pyspark.sql import functions as F

from headwater import schemas
from headwater.config import Config, load
from headwater.models import ModelSpec, build
from headwater.models.transitions import count
from headwater.scoring.kernel import top_n
from headwater.spark import session
from headwater.tables import Warehouse
from headwater.tracking import Registry, runs
from headwater.training import artifact

ROOT = Path(__file__).resolve().parents[1]
USERS, ITEMS, CHANGED = (
    int(os.environ.get(f"HEADWATER_BENCH_{name}", default))
    for name, default in (("USERS", "100000"), ("ITEMS", "100000"), ("CHANGED", "1000"))
)
MARKED = os.environ.get("HEADWATER_BENCH_MARKED") == "1"
DIM, LENGTH, NOW = 64, 50, datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = {"landing": folder, "warehouse": str(root / "warehouse")}
        settings = {"paths": paths, "model": {"hybrid": True}, "tables": {"deletion_vectors": MARKED}}
        (root / "site.yaml").write_text(yaml.safe_dump(settings))
        spark = session(Config(), "bench")
        tables = Warehouse(spark, paths["warehouse"], deletion_vectors=MARKED)
        prepare(tables, load([root / "site.yaml"]), root)
        floor = kernel_rate()
        print(
            f"{USERS:,} users × {ITEMS:,} items, d = {DIM}, {'rows are marked' if MARKED else 'files are written anew'}; "
            f"the kernel alone, one thread: {floor:,.0f} users/s",
            flush=True,
        )
        show("full", USERS, *score(root, "full"))
        tables.merge(changed(tables), "sequences", {"job": "bench"})
        show("nearline", CHANGED, *score(root, "nearline"))


def prepare(tables: Warehouse, config: Config, root: Path) -> None:
    """Tables of the site, and a registered champion."""
    spark = tables.spark
    items = spark.range(1, ITEMS + 1).select(
        F.concat(F.lit("i"), "id").alias("item_id"),
        F.col("id").cast("int").alias("item_idx"),
        F.concat(F.lit("Thing "), "id").alias("title"),
        F.concat(F.lit("kind "), F.col("id") % 40).alias("category"),
        F.lit(None).cast("string").alias("text"),
        F.lit(1.0).alias("price"),
        F.lit(True).alias("available"),
        F.lit(NOW).alias("first_seen"),
    )
    tables.overwrite(items, "items", {"job": "bench"})
    tables.overwrite(histories(spark, USERS, 1), "sequences", {"job": "bench"})
    sample = tables.read("sequences").limit(20_000).select("item_idx").toPandas()["item_idx"]
    padded = np.zeros((len(sample), 20), dtype=np.int64)
    for row, steps in enumerate(sample):
        padded[row, -len(steps) :] = steps
    one = tables.read("sequences").limit(1_000).selectExpr("user_id", "explode(item_idx) AS item_idx")
    events = one.join(items.select("item_idx", "item_id"), "item_idx").select(
        F.expr("uuid()").alias("event_id"), "user_id", "item_id", F.lit("view").alias("event_type"), F.lit(NOW).alias("event_time"),
        *(F.lit(None).cast(schemas.TABLES["events"][name]).alias(name) for name in ("value", "query", "session_id")),
        F.lit("s").alias("source"), F.lit("f").alias("source_file"), F.lit(NOW).alias("ingested_at"),
        F.lit(NOW.date()).alias("event_date"),
    )  # fmt: skip
    tables.overwrite(events, "events", {"job": "bench"})
    register(config, root / "model", padded, ITEMS, USERS, NOW)


def register(config: Config, folder: Path, walks: np.ndarray, n_items: int, users: int, at: datetime) -> None:
    """A champion with weights by chance, blended with what follows what in ``walks`` int ``[rows, seq]``: what its lists are
    worth does not matter here, what they cost does."""
    spec = ModelSpec("sasrec", n_items=n_items, max_length=LENGTH, dim=DIM, layers=2, heads=2)
    facts = {
        "kind": "sasrec", "n_items": n_items, "max_length": LENGTH, "protocol": "temporal", "seed": 1, "best_epoch": 1,
        "code_revision": "", "sequences_version": 0, "events_version": 0, "sequences": users,
        "blend": {"transitions": 2.0, "recency": 0.5}, "train_until": at.isoformat(), "validation_until": at.isoformat(),
    }  # fmt: skip
    torch.manual_seed(1)
    artifact.save(folder, build(spec).state_dict(), spec, facts, {"transitions": count(walks, n_items)})
    runs.log_training(Registry(config), config, folder, facts, [{"epoch": 1, "loss": 1.0}], "train_model")


def histories(spark, users: int, seed: int):
    """Rows of ``sequences``: 1 to 20 events, half of the users up to 6."""
    length = F.least(F.lit(20), (F.lit(1) + F.floor(F.pow(F.rand(seed), 2) * 20)).cast("int"))
    walk = F.expr(f"transform(sequence(1, length), k -> cast(1 + pmod(hash(id, k, {seed}), {ITEMS}) AS int))")
    made = spark.range(users).withColumn("length", length).withColumn("item_idx", walk)
    repeated = {name: F.array_repeat(value, F.col("length")) for name, value in (
        ("event_type", F.lit("view")), ("event_time", F.lit(NOW)), ("event_id", F.lit("e")),
        ("value", F.lit(None).cast("double")))}  # fmt: skip
    made = made.withColumns(repeated).withColumn("seen_items", F.array_sort(F.array_distinct("item_idx")))
    made = made.withColumn("user_id", F.concat(F.lit("u"), "id"))
    made = made.withColumn("last_event_time", F.lit(NOW)).withColumn("updated_at", F.lit(NOW))
    return made.select(schemas.columns("sequences"))


def changed(tables: Warehouse):
    """New histories of some of all users."""
    return histories(tables.spark, USERS, 2).orderBy(F.xxhash64("user_id")).limit(CHANGED)


def kernel_rate() -> float:
    torch.set_num_threads(1)
    users, items = torch.randn(512, DIM + 1), torch.randn(ITEMS, DIM + 1)
    top_n(users, items, 40)
    begun = time.perf_counter()
    top_n(users, items, 40)
    return len(users) / (time.perf_counter() - begun)


def score(root: Path, mode: str) -> tuple[float, float]:
    """Seconds of one scoring job, and the most GiB that one of its Python workers held by itself."""
    begun = time.perf_counter()
    command = [sys.executable, str(ROOT / "jobs/score_topn.py"), "--config", str(root / "site.yaml"), "--mode", mode]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    most = [0.0]
    watcher = threading.Thread(target=watch, args=(process.pid, most))
    watcher.start()
    out, err = process.communicate()
    watcher.join()
    assert process.returncode == 0, err[-2000:]
    assert json.loads(out.splitlines()[-1])["users_scored"] == (USERS if mode == "full" else CHANGED), out
    return time.perf_counter() - begun, most[0]


def watch(pid: int, most: list[float]) -> None:
    while psutil.pid_exists(pid):
        try:
            for one in psutil.Process(pid).children(recursive=True):
                if "python" in one.name() and "daemon" in " ".join(one.cmdline()):
                    most[0] = max(most[0], one.memory_full_info().uss / 2**30)
        except psutil.Error:
            pass
        time.sleep(0.5)


def show(mode: str, users: int, seconds: float, memory: float) -> None:
    print(
        f"{mode:<9}{users:>9,} users {seconds:8.1f} s {users / seconds:9,.0f} users/s   {memory:.2f} GiB a worker",
        flush=True,
    )


if __name__ == "__main__":
    main()
