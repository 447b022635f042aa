"""Exact Top-10 of the same factors: our kernel beside the bare product, implicit and faiss, as ratios, one table.

    make bench-scoring

Every engine is a process of its own with one thread, as a Spark worker has, reads the same vectors from a file and is
timed inside, without its start; the engines take turns, and the best of ``ROUNDS`` counts, so that a noisy moment strikes
all of them. Peers live in an environment of their own (`.venv-peers`, made by the target). The bare product is the same
tiles as ours, multiplied into the same small buffer, and nothing kept: what the machine can do at most.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SIZES = ((4_096, 12_000), (2_048, 100_000), (256, 1_000_000))
"""Users and items of each row."""
DIM, N, THREADS, ROUNDS = 64, 10, 1, 3

OURS = f"""
import numpy, sys, time, torch
from headwater.scoring.kernel import TILES, top_n
torch.set_num_threads({THREADS})
BATCH, TILE = TILES["cpu"]
users, items = (torch.from_numpy(numpy.load(f"{{sys.argv[1]}}/{{name}}.npy")) for name in ("users", "items"))
buffer = torch.empty(BATCH, TILE)
def product():
    for first in range(0, len(users), BATCH):
        for start in range(0, len(items), TILE):
            some, tile = users[first:first + BATCH], items[start:start + TILE]
            torch.mm(some, tile.T, out=buffer[:len(some), :len(tile)])
def headwater():
    top_n(users, items, {N})
"""
FAISS = f"""
import faiss, numpy, sys, time
faiss.omp_set_num_threads({THREADS})
users, items = (numpy.load(f"{{sys.argv[1]}}/{{name}}.npy") for name in ("users", "items"))
index = faiss.IndexFlatIP({DIM})
index.add(items)
def run():
    index.search(users, {N})
"""
IMPLICIT = f"""
import numpy, sys, time, threadpoolctl
from implicit.cpu.topk import topk
users, items = (numpy.load(f"{{sys.argv[1]}}/{{name}}.npy") for name in ("users", "items"))
threadpoolctl.threadpool_limits({THREADS})
def run():
    topk(items, users, {N}, num_threads={THREADS})
"""
TIMED = """
{call}()
begun = time.perf_counter()
{call}()
print(time.perf_counter() - begun)
"""
ENGINES = {
    "headwater": ("own", OURS, "headwater"),
    "bare product": ("own", OURS, "product"),
    "faiss flat": ("peers", FAISS, "run"),
    "implicit": ("peers", IMPLICIT, "run"),
}


def main(peers: str) -> None:
    python = {"own": sys.executable, "peers": peers}
    print(f"Top-{N} of d = {DIM} vectors, one thread, best of {ROUNDS}; users a second, and × the bare product")
    print(f"{'users × items':<20}" + "".join(f"{name:>22}" for name in ENGINES))
    for users, items in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            rng = np.random.default_rng(0)
            for name, count in (("users", users), ("items", items)):
                np.save(Path(folder) / f"{name}.npy", rng.normal(size=(count, DIM)).astype(np.float32))
            seconds: dict[str, float] = {}
            for _ in range(ROUNDS):
                for name, (where, program, call) in ENGINES.items():
                    taken = timed(python[where], program + TIMED.format(call=call), folder)
                    seconds[name] = min(taken, seconds.get(name, taken))
        floor = seconds["bare product"]
        cells = (f"{users / taken:>13,.0f}/s {floor / taken:>5.2f} ×" for taken in seconds.values())
        print(f"{users:,} × {items:,}".ljust(20) + "".join(cells), flush=True)


def timed(python: str, program: str, folder: str) -> float:
    """Seconds that a program says of itself on its last line."""
    ended = subprocess.run([python, "-c", program, folder], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{python}: {ended.stderr.strip().splitlines()[-1]}")
    return json.loads(ended.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(sys.argv[1])
