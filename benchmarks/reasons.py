"""Are reasons faithful? Removes the event that each reason names from the history and scores the item again; writes nothing.

    python benchmarks/reasons.py --config conf/site.yaml

Also prints the same for a random event, how many different events a list names, and the time of finding reasons relative to
finding the lists (one thread).
"""

from __future__ import annotations

import time
from typing import Any

import torch
import typer
from pyspark.sql import functions as F
from torch import Tensor

from headwater import job, popularity
from headwater.job import Job
from headwater.models.ranker import Ranker
from headwater.models.variety import Variety
from headwater.scoring import executors
from headwater.scoring.candidates import Candidates
from headwater.scoring.reasons import decisive_events
from headwater.scoring.users import Steps
from headwater.tracking import Registry
from headwater.training import artifact

USERS, BATCH = 2_000, 500

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(config: job.ConfigFiles = None, set_: job.Overrides = None) -> None:
    job.run("reasons", measure, config, set_)


def measure(j: Job) -> dict[str, Any]:
    torch.set_num_threads(1)
    registry, topn = Registry(j.config), j.config.topn
    popular, _ = popularity.of_items(j.warehouse.read("events"), j.warehouse.read("items"), topn.popular_half_life_days)
    ranker = artifact.ranker(registry.download(registry.need_champion())).with_recency(popular)
    candidates = Candidates(ranker, torch.arange(ranker.n_items + 1) > 0)
    rows = j.warehouse.read("sequences").where(F.size("item_idx") > 1).orderBy(F.xxhash64("user_id")).limit(USERS)
    frame = executors.histories(rows).toPandas()
    draws = torch.Generator().manual_seed(1)
    confirmed = confirmed_random = with_event = places = named = most = 0
    seconds = {"lists": 0.0, "reasons": 0.0}
    for start in range(0, len(frame), BATCH):
        some = frame.iloc[start : start + BATCH]
        steps = Steps.of(some)
        history, codes = ranker.pad_steps(len(some), steps.user, steps.item, steps.context())
        seen = [torch.as_tensor(items.copy(), dtype=torch.int64) for items in some["seen_items"]]
        users = torch.arange(len(seen)).repeat_interleave(torch.tensor([len(items) for items in seen]))
        started = time.perf_counter()
        variety = Variety.of(topn)
        query = ranker.query(history, codes)
        found = candidates.best(candidates.query(query), (users, torch.cat(seen)), variety.width(topn.n))
        _, items = variety.pick(*found, topn.n, ranker.directions)
        lists_done = time.perf_counter()
        traces = query.evidence.traces(items)
        scores = ranker.scores_of(items, query, traces)
        part = ranker.history_part(items, scores, query)
        place = decisive_events(ranker, items, scores, traces, part, history, codes)
        seconds["lists"] += lists_done - started
        seconds["reasons"] += time.perf_counter() - lists_done
        length = (history > 0).sum(1, keepdim=True)
        random_place = history.shape[1] - 1 - (torch.rand(place.shape, generator=draws) * length).long()
        places += place.numel()
        with_event += int((place >= 0).sum())
        times = torch.nn.functional.one_hot(place + 1).sum(dim=1)[:, 1:]  # [batch, seq]
        named, most = named + int((times > 0).sum()), most + int(times.max(dim=1).values.sum())
        confirmed += int((scores_lower(ranker, items, history, codes, place) & (place >= 0)).sum())
        confirmed_random += int(scores_lower(ranker, items, history, codes, random_place).sum())
    print(f"{places} list positions: {with_event / places:.1%} have a reason that names an event")
    print(
        f"{confirmed / with_event:.1%} of these score lower without that event; "
        f"{confirmed_random / places:.1%} of all score lower without a random event"
    )
    print(
        f"a list of {topn.n} names {named / len(frame):.1f} different events, "
        f"the most frequent one at {most / len(frame):.1f} positions"
    )
    print(f"finding reasons takes {seconds['reasons'] / seconds['lists']:.2f} times as long as finding the lists")
    return {"users": len(frame)}


def scores_lower(ranker: Ranker, items: Tensor, history: Tensor, context: Tensor, place: Tensor) -> Tensor:
    """Whether each item scores lower without the event at ``place``, bool ``[batch, n]``; scores once per rank of the list."""
    before, lower = ranker.scores_of(items, ranker.query(history, context)), []
    for rank in range(items.shape[1]):
        removed = torch.arange(history.shape[1]) == place[:, rank : rank + 1]
        shorter = ranker.pad(
            *([row[~cut].tolist() for row, cut in zip(part, removed, strict=True)] for part in (history, context))
        )
        lower.append(ranker.scores_of(items[:, rank : rank + 1], ranker.query(*shorter)) < before[:, rank : rank + 1])
    return torch.cat(lower, dim=1)


if __name__ == "__main__":
    job.start(app)
