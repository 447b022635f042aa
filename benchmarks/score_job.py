"""`score_topn` from end to end on made-up sites: how its seconds grow with users, items and the share of users who changed.

    python benchmarks/score_job.py

A row for each site: `--mode full` beside the kernel alone and beside Spark ML's ALS (`als_job.py`), each job a process of its own,
timed from its start to its end; then `--mode nearline` for growing numbers of changed users. Sequences have 1 to 20 events
(median 6), the catalogue has categories, the model is an untrained SASRec of d = 64, blended with transitions counted from the
sequences; variety and reasons are those of the default config. ALS has vectors of the same width and writes a bare Delta table: no
exclusions, variety, reasons or history. Changed users are chosen by hash among all, so that their rows lie in all files.
Sites: HEADWATER_BENCH_SITES (users x items, …) and _CHANGED (numbers of users); _MARKED=1 sets `tables.deletion_vectors`.
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

import als_job
import numpy as np
import psutil
import torch
import yaml
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from headwater import local, schemas
from headwater.config import Config, load
from headwater.models import ModelSpec, build
from headwater.models.transitions import count
from headwater.scoring.kernel import top_n
from headwater.spark import session
from headwater.tables import Warehouse
from headwater.tracking import Registry, runs
from headwater.training import artifact

ROOT = Path(__file__).resolve().parents[1]
SITES = [
    tuple(map(int, site.split("x")))
    for site in os.environ.get("HEADWATER_BENCH_SITES", "100000x12000,20000x100000,100000x100000").split(",")
]
CHANGED = [int(users) for users in os.environ.get("HEADWATER_BENCH_CHANGED", "100,1000,10000").split(",")]
MARKED = os.environ.get("HEADWATER_BENCH_MARKED") == "1"
CORES = local.cores()
DIM, LENGTH, NOW = 64, 50, datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = ("kernel", "full", "kernel/full", "ALS", "ALS/full", "a worker", *(f"{users:,} users" for users in CHANGED))


def main() -> None:
    files = "rows are marked" if MARKED else "files are written anew"
    print(f"seconds of score_topn; d = {DIM}, {CORES} cores, {files}; kernel: one thread's time divided by the cores")
    print("users × items".ljust(20) + "".join(name.rjust(13) for name in COLUMNS), flush=True)
    for users, items in SITES:
        with tempfile.TemporaryDirectory() as folder:
            cells = measured(Path(folder), users, items)
            print(f"{users:,} × {items:,}".ljust(20) + "".join(cell.rjust(13) for cell in cells), flush=True)


def measured(root: Path, users: int, items: int) -> list[str]:
    """The cells of a site's row."""
    paths = {"landing": str(root), "warehouse": str(root / "warehouse")}
    settings = {"paths": paths, "model": {"hybrid": True}, "tables": {"deletion_vectors": MARKED}}
    (root / "site.yaml").write_text(yaml.safe_dump(settings))
    tables = Warehouse(session(Config(), "bench"), paths["warehouse"], deletion_vectors=MARKED)
    prepare(tables, load([root / "site.yaml"]), root, users, items)
    kernel = kernel_seconds(users, items)
    full, memory = score(root, "full", users)
    peer = als(tables.spark, root, users, items)
    nearline = []
    for seed, some in enumerate(CHANGED, 2):
        tables.merge(changed(tables, users, items, some, seed), "sequences", {"job": "bench"})
        nearline.append(f"{score(root, 'nearline', some)[0]:.1f}")
    shares = f"{kernel / full:.2f}", f"{peer / full:.2f}"
    return [f"{kernel:.1f}", f"{full:.1f}", shares[0], f"{peer:.1f}", shares[1], f"{memory:.2f} GiB", *nearline]


def prepare(tables: Warehouse, config: Config, root: Path, users: int, n_items: int) -> None:
    """Tables of the site, and a registered champion."""
    spark = tables.spark
    items = spark.range(1, n_items + 1).select(
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
    tables.overwrite(histories(spark, users, n_items, 1), "sequences", {"job": "bench"})
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
    register(config, root / "model", padded, n_items, users, NOW)


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


def histories(spark: SparkSession, users: int, items: int, seed: int) -> DataFrame:
    """Rows of ``sequences``: 1 to 20 events, half of the users up to 6."""
    length = F.least(F.lit(20), (F.lit(1) + F.floor(F.pow(F.rand(seed), 2) * 20)).cast("int"))
    walk = F.expr(f"transform(sequence(1, length), k -> cast(1 + pmod(hash(id, k, {seed}), {items}) AS int))")
    made = spark.range(users).withColumn("length", length).withColumn("item_idx", walk)
    repeated = {name: F.array_repeat(value, F.col("length")) for name, value in (
        ("event_type", F.lit("view")), ("event_time", F.lit(NOW)), ("event_id", F.lit("e")),
        ("value", F.lit(None).cast("double")))}  # fmt: skip
    made = made.withColumns(repeated).withColumn("seen_items", F.array_sort(F.array_distinct("item_idx")))
    made = made.withColumn("user_id", F.concat(F.lit("u"), "id"))
    made = made.withColumn("last_event_time", F.lit(NOW)).withColumn("updated_at", F.lit(NOW))
    return made.select(schemas.columns("sequences"))


def changed(tables: Warehouse, users: int, items: int, some: int, seed: int) -> DataFrame:
    """New histories of some of all users."""
    return histories(tables.spark, users, items, seed).orderBy(F.xxhash64("user_id", F.lit(seed))).limit(some)


def kernel_seconds(users: int, items: int) -> float:
    """What the kernel alone takes for all users, of one thread's time divided by the cores."""
    torch.set_num_threads(1)
    some, rows = torch.randn(512, DIM + 1), torch.randn(items, DIM + 1)
    wide = Config().topn.candidates
    top_n(some, rows, wide)
    begun = time.perf_counter()
    top_n(some, rows, wide)
    return (time.perf_counter() - begun) * users / len(some) / CORES


def score(root: Path, mode: str, users: int) -> tuple[float, float]:
    """Seconds of one scoring job, and the most GiB that one of its Python workers held by itself."""
    command = [sys.executable, str(ROOT / "jobs/score_topn.py"), "--config", str(root / "site.yaml"), "--mode", mode]
    out, seconds, memory = timed(command)
    assert json.loads(out.splitlines()[-1])["users_scored"] == users, out
    return seconds, memory


def als(spark: SparkSession, root: Path, users: int, items: int) -> float:
    """Seconds of Spark ML's job with factors of the same width."""
    rng = np.random.default_rng(0)
    factors = [rng.normal(size=(rows, DIM)).astype(np.float32) for rows in (users, items)]
    als_job.save(spark, factors[0], factors[1], str(root / "als"))
    return timed([sys.executable, als_job.__file__, str(root / "als"), str(root / "als_lists")])[1]


def timed(command: list[str]) -> tuple[str, float, float]:
    """What a job prints, its seconds, and the most GiB that one of its Python workers held by itself."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    most = [0.0]
    watcher = threading.Thread(target=watch, args=(process.pid, most))
    watcher.start()
    out, err = process.communicate()
    seconds = time.perf_counter() - begun
    watcher.join()
    assert process.returncode == 0, err[-2000:]
    return out, seconds, most[0]


def watch(pid: int, most: list[float]) -> None:
    while psutil.pid_exists(pid):
        try:
            for one in psutil.Process(pid).children(recursive=True):
                if "python" in one.name() and "daemon" in " ".join(one.cmdline()):
                    most[0] = max(most[0], one.memory_full_info().uss / 2**30)
        except psutil.Error:
            pass
        time.sleep(0.5)


if __name__ == "__main__":
    main()
