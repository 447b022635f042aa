"""Quality on a temporal split, one cut in time for all users. Targets are a user's items after it; with ``topn.exclude_seen``,
only those that are new to the user.

    python benchmarks/temporal.py onlineretail.csv.gz --columns CustomerID,StockCode,InvoiceDate --where "Quantity > 0" \\
        --config conf/experiments/retail.yaml --seeds 3
    python benchmarks/temporal.py ml-100k.inter --separator "\\t" --columns user_id:token,item_id:token,timestamp:float \\
        --config conf/experiments/films.yaml --seeds 3

The file has one line per event, with columns for user, item, time (epoch seconds or a date) and, for models that read it
(`model.context`), value. The protocol is ``evaluate.protocol: temporal``: events before a first cut are for training, those
between it and a second cut for early stopping and the blend, those after the second for the test. With ``train.refit`` the
model is trained again on all events before the second cut. Baselines, each fitted on all events before the second cut:
popularity, recent popularity, item transitions, EASE and, with ``topn.exclude_seen: false``, the user's own most frequent
items. Each difference has a bootstrap interval over users. New users, without training events, are also reported separately,
and the share of targets that are new items is printed. No Spark, one process.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fitting import CLICK, fit, windows
from options import Columns, Seeds, Separator, Threads, Where, start

from headwater import config as configuration
from headwater import job
from headwater.clock import DAY
from headwater.config import Config
from headwater.evaluation import baselines, gate
from headwater.evaluation.cases import HeldOut
from headwater.evaluation.measure import Measured, measure
from headwater.evaluation.ranking import Scores
from headwater.models import context, ease, transitions
from headwater.models.histories import left_padded
from headwater.models.ranker import Ranker, recency_scores
from headwater.training import hybrid, readers

NDCG = ("ndcg", 10)


def main(
    data: Path,
    columns: Columns,
    separator: Separator = ",",
    where: Where = "",
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
    seeds: Seeds = 1,
    threads: Threads = 2,
) -> None:
    torch.set_num_threads(threads)
    settings = configuration.load(config, set_)
    events = read(data, columns, separator, where)
    test, validation = settings.evaluate.test_fraction, settings.evaluate.validation_fraction
    cuts = np.quantile(events["time"], [1 - test - validation, 1 - test])
    if (days := settings.evaluate.max_days) is not None:
        cuts[1] = max(cuts[1], events["time"].max() - days * DAY)
        cuts[0] = max(cuts[0], cuts[1] - days * DAY)
    training_events, before = (events[events["time"] < cut] for cut in cuts)
    last = before if settings.train.refit else training_events
    held = held_out(events, cuts[1], np.inf, settings)
    n_items = int(events["item"].max())
    new = ~np.isin(held.users, last["user"].unique())
    unknown = np.mean(~np.isin(np.concatenate(held.targets), last["item"].unique()))
    print(f"{len(events):,} events, {events['user'].nunique():,} users, {n_items:,} items")
    print(f"{len(held):,} users tested, {new.sum():,} of them new; {unknown:.1%} of their targets are new items")
    baseline_results = {
        name: measure(each, held, [10], np.ones(n_items + 1))
        for name, each in baseline_scores(before, n_items, settings)
    }
    cases = held_out(events, cuts[0], cuts[1], settings).arrays(settings.sequence.max_length)
    our_results: dict[str, list[Measured]] = {"sequence model": [], "hybrid": []}
    for seed in range(1, seeds + 1):
        popular = recent_popularity(before, n_items, settings)
        ranker = train(training_events, before, cases, n_items, settings, seed).with_recency(popular)
        for name, each in {"sequence model": ranker.without_blend(), "hybrid": ranker}.items():
            our_results[name].append(of_ranker(each, held, n_items))
    best = np.mean([each.per_user[NDCG] for each in our_results["hybrid"]], axis=0)
    for name, found in {**{name: [each] for name, each in baseline_results.items()}, **our_results}.items():
        show(name, found, new, best)


def read(path: Path, columns: str, separator: str, where: str) -> pd.DataFrame:
    """Columns user (from 0), item (from 1), time (epoch seconds) and context, oldest first; rows with a missing value are
    left out. ``columns``: those of the file, separated by commas."""
    table = pd.read_csv(path, sep=separator.replace("\\t", "\t"), low_memory=False)
    names = columns.split(",")
    table = (table.query(where) if where else table)[names].dropna()
    table.columns = pd.Index(["user", "item", "time", "value"][: len(names)])
    if not pd.api.types.is_numeric_dtype(table["time"]):
        table["time"] = pd.to_datetime(table["time"]).astype("datetime64[s]").astype("int64")
    table = table.sort_values("time", kind="stable", ignore_index=True)
    table["user"], table["item"] = pd.factorize(table["user"])[0], pd.factorize(table["item"])[0] + 1
    by_user = table.sort_values("user", kind="stable")
    value = by_user["value"] if "value" in by_user else np.full(len(by_user), np.nan)
    kinds, first = np.full(len(by_user), CLICK), ~by_user.duplicated("user")
    codes = context.pack(kinds, by_user["time"].to_numpy(), np.asarray(value, float), first.to_numpy())
    table["context"] = pd.Series(codes, by_user.index)
    return table


def held_out(events: pd.DataFrame, start: float, end: float, config: Config) -> HeldOut:
    """Users with events in ``[start, end)``, whose items are the targets; with ``topn.exclude_seen`` only new ones are."""
    during = events[(events["time"] >= start) & (events["time"] < end)]
    before = events[events["time"] < start]
    histories, codes = of_users(before), of_users(before, "context")
    users, items, seen, targets = [], [], [], []
    for user, wanted in of_users(during).items():
        history = histories.get(user, np.empty(0, np.int64))
        known = np.unique(history) if config.topn.exclude_seen else history[:0]
        if len(new := np.setdiff1d(wanted, known)):
            users.append(user)
            items.append(history)
            seen.append(known)
            targets.append(new)
    last = config.sequence.max_length
    contexts = [codes.get(user, np.empty(0, np.int64))[-last:] for user in users]
    count = np.array(list(map(len, items)))
    return HeldOut(np.array(users), [history[-last:] for history in items], contexts, seen, targets, count)


def of_users(events: pd.DataFrame, column: str = "item") -> dict[Any, np.ndarray]:
    """Each user's items, oldest first, or the values of another column of these events."""
    return {user: values.to_numpy() for user, values in events.groupby("user")[column]}


def recent_popularity(events: pd.DataFrame, n_items: int, config: Config) -> np.ndarray:
    """Recent popularity of each item, ``[n_items + 1]``, as in ``popularity.decayed_counts``."""
    age = (events["time"].max() - events["time"]) / DAY / config.topn.popular_half_life_days
    return np.bincount(events["item"], 0.5**age, minlength=n_items + 1)


def cut(events: pd.DataFrame, config: Config, count: int | None = None, reward: float = 0.0) -> readers.Batch:
    """Histories as rows for a training (``fitting.windows``): the last ``count`` windows of each, by default
    ``train.windows``."""
    names = [name for name in ("item", "context", "answers") if name in events]
    users = [{name: part[name].to_numpy() for name in names} for _, part in events.groupby("user")]
    return windows(users, config.encoder_length, count or config.train.windows, reward)


def train(
    training_events: pd.DataFrame, before: pd.DataFrame, cases: Any, n_items: int, config: Config, seed: int
) -> Ranker:
    """Train like ``jobs/train_model.py``: choose epochs and blend on validation; with ``train.refit``, train again on all events
    before the test."""
    rows = cut(training_events, config)
    if "recency" in config.blended:
        cases = replace(cases, prior=recency_scores(recent_popularity(training_events, n_items, config)).numpy())
    model, best_epoch = fit(rows, cases, None, n_items, config, seed)
    blend = hybrid.best_blend(model, hybrid.fit_parts(config.blended, rows["item"], n_items), cases)
    print(f"seed {seed}: {len(rows['item']):,} rows, best epoch {best_epoch}, {blend}", flush=True)
    if config.train.refit:
        rows = cut(before, config)
        again = config.train.model_copy(update={"epochs": best_epoch})
        model, _ = fit(rows, None, None, n_items, config.model_copy(update={"train": again}), seed)
    facts = {"blend": blend, "max_length": config.sequence.max_length}
    return Ranker(model, facts, hybrid.fit_parts(config.blended, rows["item"], n_items))


def of_ranker(ranker: Ranker, held: HeldOut, n_items: int) -> Measured:
    return measure(lambda items, codes: ranker.scores(*ranker.pad(items, codes)), held, [10], np.ones(n_items + 1))


def baseline_scores(before: pd.DataFrame, n_items: int, config: Config) -> list[tuple[str, Scores]]:
    """Baselines without gradient steps, fitted on all events before the test."""

    def counted(events: pd.DataFrame) -> np.ndarray:
        return np.bincount(events["item"], minlength=n_items + 1).astype(float)

    rows = left_padded(list(of_users(before).values()))
    follows, linear = transitions.count(rows, n_items), ease.fit(rows, n_items)
    popular = torch.from_numpy(counted(before) / len(before) * 1e-6)
    recent = before["time"] >= before["time"].max() - config.evaluate.recent_days * DAY
    return [
        ("popularity", baselines.by_count(counted(before))),
        ("recent popularity", baselines.by_count(counted(before[recent]))),
        ("item transitions", baselines.by_transitions(follows, counted(before))),
        ("EASE", lambda items, _: linear.scores(torch.from_numpy(left_padded(items))).double() + popular),
        *([] if config.topn.exclude_seen else [("own items", baselines.by_own(counted(before)))]),
    ]


def show(name: str, found: list[Measured], new: np.ndarray, best: np.ndarray) -> None:
    """Print a line: means over users and seeds, the deviation over seeds, and the interval of the hybrid's lead over it."""
    ndcg = np.array([each.per_user[NDCG] for each in found])
    hits = np.mean([each.mean("hit_rate", 10) for each in found])
    spread = f" ± {ndcg.mean(1).std(ddof=1):.4f}" if len(found) > 1 else ""
    new_users = f", new users {ndcg[:, new].mean():.4f}" if new.any() else ""
    low, high = gate.interval(best - ndcg.mean(0), 2_000, 0.95, seed=1)
    ahead = "" if name == "hybrid" else f"; hybrid ahead by {low:+.4f} to {high:+.4f}"
    print(f"{name:<20}HR@10 {hits:.4f}  NDCG@10 {ndcg.mean():.4f}{spread}{new_users}{ahead}", flush=True)


if __name__ == "__main__":
    start(main)
