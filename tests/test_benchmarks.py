"""Every benchmark that needs no peer and no site runs to its end, on tiny data; the figures mean nothing here."""

import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sites import ROOT

from headwater import config as configuration

SMALL = (
    "model.dim=8",
    "model.layers=1",
    "model.heads=1",
    "train.epochs=1",
    "train.batch_size=16",
    "sequence.max_length=8",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Forty users who walk through thirty items: a file of sequences, one of item attributes, and one of events."""
    folder = tmp_path_factory.mktemp("data")
    rng = random.Random(1)
    walks = [[(start + step + rng.randrange(3)) % 30 + 1 for step in range(10)] for start in range(40)]
    sequences = [f"{user} {' '.join(map(str, walk))}" for user, walk in enumerate(walks)]
    (folder / "sequences.txt").write_text("\n".join(sequences) + "\n")
    (folder / "attributes.json").write_text(json.dumps({str(item): [item % 4, item % 3] for item in range(1, 31)}))
    events = [
        f"{user}\t{item}\t{rng.randrange(1, 6)}\t{86_400 * (user + 4 * step)}"
        for user, walk in enumerate(walks)
        for step, item in enumerate(walk)
    ]
    (folder / "events.tsv").write_text("\n".join(["user_id\titem_id\trating\ttimestamp", *events]) + "\n")
    return folder


def run_benchmark(script, *args, cwd, **sizes):
    """Run a benchmark to its end; ``sizes`` become HEADWATER_BENCH_*."""
    env = os.environ | {f"HEADWATER_BENCH_{name}": str(size) for name, size in sizes.items()}
    command = [sys.executable, str(ROOT / "benchmarks" / script), *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def benchmark_output(script, *args, cwd, **sizes):
    """Run a benchmark that must succeed; returns its output."""
    done = run_benchmark(script, *args, cwd=cwd, **sizes)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_leave_one_out_and_cold_items_benchmarks_run(data):
    attributes = ("--attributes", "attributes.json", "--threads", "1")
    settings = [f"--set={each}" for each in (*SMALL, "model.hybrid=true", "model.features=[category]")]
    said = benchmark_output("leave_one_out.py", "sequences.txt", *attributes, *settings, "--refit", cwd=data)
    assert "hybrid, test NDCG@10" in said
    assert "hybrid, refit, test NDCG@10" in said
    said = benchmark_output("cold_items.py", "sequences.txt", *attributes[:2], *settings, "--share=0.2", cwd=data)
    assert "attributes, as scoring does, 1 " in said
    vectors = np.random.default_rng(1).normal(size=(30, 80))
    pd.DataFrame({"item": range(1, 31), "vector": list(vectors)}).to_parquet(data / "vectors.parquet")
    brought = ("--vectors=vectors.parquet", *settings, "--share=0.2")
    assert "nearest in content, 1 " in benchmark_output("cold_items.py", "sequences.txt", *brought, cwd=data)


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (["sequences.txt", "--set=model.kind=gnn"], 2, "leave_one_out: model.kind: 'gnn' is not one of sasrec"),
        (["nowhere.txt"], 1, "leave_one_out: [Errno 2] No such file or directory: 'nowhere.txt'"),
        (["sequences.txt", "--seed=3"], 2, "leave_one_out: No such option: --seed"),
    ],
)
def test_a_wrong_benchmark_command_is_a_one_line_error(data, args, code, line):
    done = run_benchmark("leave_one_out.py", *args, cwd=data)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert line in done.stderr


def test_the_temporal_finetune_and_stages_benchmarks_run(data):
    columns = ("--separator", r"\t", "--columns", "user_id,item_id,timestamp", "--threads", "1")
    settings = [f"--set={each}" for each in SMALL]
    said = benchmark_output("temporal.py", "events.tsv", *columns, *settings, "--set=model.hybrid=true", cwd=data)
    assert "hybrid ahead by" in said
    assert "own items" not in said
    again = ("--set=model.hybrid=true", "--set=topn.exclude_seen=false")
    assert "own items" in benchmark_output("temporal.py", "events.tsv", *columns, *settings, *again, cwd=data)
    said = benchmark_output("finetune.py", "events.tsv", *columns, *settings, "--set=model.hybrid=true", cwd=data)
    assert "fine-tuned at 0.0003, parts counted anew " in said
    assert " beside trained again" in said
    said = benchmark_output(
        "stages.py", "targets", "events.tsv", *settings, "--set=train.pretrain_epochs=1", "--seeds=1", cwd=data
    )
    assert "pre-trained, then high ratings" in said


def test_the_training_benchmark_compares_the_engine_with_a_bare_loop(data, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import fitting
    import training

    sequences = fitting.read(data / "sequences.txt")
    cases = fitting.held_out(sequences, 2).arrays(8)
    config = configuration.load([], [*SMALL, "train.average=0.9"])
    assert min(training.engine_and_bare_loop(sequences, None, config, 1, cases)) > 0


def test_the_ranks_benchmark_compares_one_rank_with_two(data):
    said = benchmark_output(
        "ranks.py", "sequences.txt", "--epochs=2", *(f"--set={each}" for each in SMALL[:3]), cwd=data
    )
    one, threads, two = said.splitlines()
    assert (one[:7], threads[:7], two[:7]) == ("1 ranks", "1 ranks", "2 ranks")
    assert one.split("loss")[1] == threads.split("loss")[1]


def test_the_gpu_index_and_large_catalogue_benchmarks_run(tmp_path):
    assert "rescored" in benchmark_output("gpu.py", "--size=64x500", "--sequences=0", cwd=tmp_path)
    assert "recall" in benchmark_output("index.py", "--items=2000", "--users=16", "--rounds=1", cwd=tmp_path)
    assert "rows" in benchmark_output(
        "big_catalogue.py", "--epochs=1", "--steps=2", cwd=tmp_path, USERS=600, ITEMS=2_000
    )


def test_a_worker_holds_about_three_times_the_matrix_of_a_large_catalogue(tmp_path):
    items = 400_000
    said = benchmark_output("worker_memory.py", cwd=tmp_path, ITEMS=items)
    matrix = items * 65 * 4 / 2**20  # MiB; a copy, or unit vectors of all items, would be as much again
    own = re.findall(r"private memory: (\d+) MiB at peak, (\d+) before", said)
    assert len(own) == 2
    assert all(int(most) - int(before) < 3.2 * matrix for most, before in own), said


def test_the_scoring_job_benchmark_runs_from_end_to_end(tmp_path):
    said = benchmark_output("score_job.py", cwd=tmp_path, SITES="60x200", CHANGED="5")
    names, cells = (re.split(r"  +", line) for line in said.splitlines()[1:])
    assert names[-1] == "5 users"
    assert (cells[0], len(cells)) == ("60 × 200", len(names))
