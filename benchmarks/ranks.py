"""Speed-up by a second rank: the same training with one rank and with two, started as `train_model` starts them.

    python benchmarks/ranks.py Beauty.txt.gz --config conf/experiments/beauty.yaml

Data are those of `leave_one_out.py`, without validation. The batch size is always the same: each of two ranks takes half of
the rows, from its own files, which Petastorm reads. Prints for each way the sequences per second of wall time (the fastest
epoch after the first), the ratio to one rank with one thread, and the loss of the last epoch. On a machine whose cores have
other work the figures mean nothing.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import typer
from fitting import last_item, read
from options import start
from pyspark.sql import DataFrame, SparkSession

from headwater import config as configuration
from headwater import job
from headwater.config import Config
from headwater.schemas import TABLES
from headwater.spark import session
from headwater.training import facts, snapshot, train

START = datetime(2026, 1, 1, tzinfo=UTC)
WAYS = ((1, 1), (1, 2), (2, 1))
"""The number of ranks, and of threads per rank."""


def main(
    data: Path,
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
    epochs: int = typer.Option(4, "--epochs"),
) -> None:
    sequences = [items[:-2] for items in read(data) if len(items) >= 4]
    settings = configuration.load(config, ["model.hybrid=false", f"train.epochs={epochs}", *(set_ or [])])
    rows, n_items, first = steps(session(Config(), "bench"), sequences), last_item(sequences), 0.0
    with tempfile.TemporaryDirectory() as folder:
        for ranks, threads in WAYS:
            history = trained(rows, settings, n_items, Path(folder), ranks, threads)
            rate = max(epoch["sequences"] / epoch["seconds"] for epoch in history[1:] or history)
            first = first or rate
            print(
                f"{ranks} ranks of {threads} threads: {rate:,.0f} sequences/s, × {rate / first:.2f}, "
                f"loss {history[-1]['loss']:.4f} after {len(history)} epochs",
                flush=True,
            )


def steps(spark: SparkSession, sequences: list[Any]) -> DataFrame:
    """The columns of `sequences` that a snapshot is made from; one event per hour, all clicks."""
    times = [[START + timedelta(hours=hour) for hour in range(len(items))] for items in sequences]
    columns = {
        "user_id": [str(user) for user in range(len(sequences))],
        "item_idx": [items.tolist() for items in sequences],
        "event_type": [["click"] * len(items) for items in sequences],
        "event_time": times,
        "event_id": [[str(place) for place in range(len(items))] for items in sequences],
        "value": [[None] * len(items) for items in sequences],
    }
    schema = ", ".join(f"{name} {TABLES['sequences'][name]}" for name in columns)
    return spark.createDataFrame(pd.DataFrame(columns), schema)


def trained(
    rows: DataFrame, config: Config, n_items: int, folder: Path, ranks: int, threads: int
) -> list[dict[str, float]]:
    """The metrics of each epoch of a training from random weights."""
    options = config.train.model_copy(update={"processes": ranks, "local_mode": True})
    directory = folder / f"{ranks}-{threads}"
    cut = snapshot.training_rows(rows, n_items, config.encoder_length)
    data = snapshot.export(cut, directory / "snapshot", {}, ranks, options.seed)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    planned = train.plan(data, facts.spec_of(config, n_items), options, directory / "run")
    found: list[dict[str, float]] = train.run(replace(planned, threads=threads), options)["history"]
    return found


if __name__ == "__main__":
    start(main)
