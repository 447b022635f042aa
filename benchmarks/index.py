"""The approximate index against exact search, by number of items: CPU seconds to build it, users per CPU second, recall.

    python benchmarks/index.py --items 100000 --items 1000000

Vectors form clusters, as in real catalogues: items and users lie around a thousand centres. Both ways find the same number of
candidates for the same users, with some items excluded for each (``scoring.candidates``), on one thread; building the index
uses all cores, as in ``score_topn``. The last column is the number of users from which the index saves time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
import typer
from options import start
from torch import Tensor

from headwater.scoring import index
from headwater.scoring.candidates import ExactIndex

T = TypeVar("T")
DIM, N, SEEN, CLUSTERS = 64, 40, 20, 1_000


def main(
    items: list[int] = typer.Option([100_000, 1_000_000], "--items"),
    users: int = typer.Option(512, "--users", help="number of users"),
    rounds: int = typer.Option(3, "--rounds", help="runs of each way, in turns; the fastest counts"),
) -> None:
    print(f"{'items':>12}{'built in':>10}{'size':>10}{'exact':>12}{'index':>12}{'×':>7}{'recall':>8}{'pays from':>12}")
    for count in items:
        draws = torch.Generator().manual_seed(1)
        centres = torch.randn(CLUSTERS, DIM, generator=draws)
        matrix, queries = (around(centres, each, draws) for each in (count, users))
        seen = (torch.randint(count, (users, 1), generator=draws) + torch.arange(SEEN) * (count // SEEN)) % count
        excluded = torch.arange(users).repeat_interleave(SEEN), seen.flatten()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            started = time.process_time()
            index.write(matrix, path)
            build_seconds = time.process_time() - started
            torch.set_num_threads(1)
            rows = torch.arange(count)
            ways: dict[str, ExactIndex | index.FaissIndex] = {
                "exact": ExactIndex(count, rows, matrix),
                "index": index.FaissIndex(path, count, rows, matrix.__getitem__),
            }
            seconds = dict.fromkeys(ways, float("inf"))
            lists: dict[str, Tensor] = {}
            for _ in range(rounds):
                for name, way in ways.items():
                    taken, (_, lists[name]) = timed(partial(way.best, queries, N, excluded))
                    seconds[name] = min(seconds[name], taken)
            size = path.stat().st_size
        found = [len(set(a.tolist()) & set(b.tolist())) / N for a, b in zip(*lists.values(), strict=True)]
        rate = {name: users / taken for name, taken in seconds.items()}
        from_users = build_seconds / (1 / rate["exact"] - 1 / rate["index"])
        print(
            f"{count:>12,}{build_seconds:>8.1f} s{size / 2**20:>6.0f} MiB{rate['exact']:>10,.0f}/s{rate['index']:>10,.0f}/s"
            f"{rate['index'] / rate['exact']:>7.2f}{sum(found) / users:>8.3f}{from_users:>12,.0f}",
            flush=True,
        )


def around(centres: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """Vectors ``[count, dim]``, each near one of the ``centres``."""
    chosen = torch.randint(len(centres), (count,), generator=draws)
    return centres[chosen] + 0.7 * torch.randn(count, centres.shape[1], generator=draws)


def timed(call: Callable[[], T]) -> tuple[float, T]:
    started = time.process_time()
    answer = call()
    return time.process_time() - started, answer


if __name__ == "__main__":
    start(main)
