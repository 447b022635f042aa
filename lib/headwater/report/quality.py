"""The quality section: the champion beside its baselines, by length of history, and the other versions."""

from __future__ import annotations

from typing import Any

from headwater.report import charts
from headwater.report.data import METRICS
from headwater.report.markup import decimal, esc, figure, missing, pair, plain, plural, table
from headwater.report.runs import Runs

Rows = list[dict[str, Any]]
"""Measurements, as ``data.quality`` returns them."""
BASELINE_LABELS = {
    "as_served": ("Its lists as served", "As served"),
    "sequence_model": ("Its sequence model alone", "Alone"),
    "item_transitions": ("Item transitions", "Transitions"),
    "recent_popularity": ("Recent popularity", "Recent"),
    "popularity": ("Popularity", "Popular"),
    "own_items": ("Their own most frequent items", "Own"),
}
"""The baselines of a model: for each name in ``model_metrics``, the label of a row and of a column."""
SIMPLE = {name: BASELINE_LABELS[name][0] for name in ("item_transitions", "popularity", "own_items")}
"""Baselines besides recent popularity that may be better than a model."""
HEADS = {"ndcg": "NDCG", "hit_rate": "Hit rate", "mrr": "MRR"}
SEGMENTS = {"all": "Everybody", "new": "New (0–2 events)", "light": "Light (3–19)", "heavy": "Heavy (20 and more)"}


def value(rows: Rows | None, version: int | None, baseline: str, metric: str, segment: str = "all") -> float | None:
    """One measurement of a version's ``baseline``; of the version itself if ``baseline`` is empty; None if there is none."""
    for row in rows or []:
        named = "" if row["model_version"] else row["model"]
        if (row["version"], named, row["metric"], row["segment"]) == (version, baseline, metric, segment):
            return row["value"]
    return None


def popularity(rows: Rows | None, version: int | None) -> tuple[str, float | None]:
    """The better of the two baselines that list the same for everybody, in words, and its NDCG; None if there is none."""
    names = ("recent_popularity", "popularity")
    found = {name: value(rows, version, name, "ndcg") for name in names}
    best = max(names, key=lambda name: found[name] or 0.0)
    return plain(best), found[best]


def section(rows: Rows, version: int | None, runs: Runs) -> str:
    """The champion and its baselines, by segment, and all versions in one table."""
    if not rows:
        return missing("Nothing to show yet: model_metrics has no rows; run jobs/evaluate_model.py.")
    versions = sorted({row["version"] for row in rows}, reverse=True)
    about: int = version if version is not None and version in versions else versions[0]
    theirs = [row for row in rows if row["version"] == about]
    k, split, protocol = theirs[0]["k"], theirs[0]["split"], theirs[0]["protocol"]
    users = max((row["users"] or 0 for row in theirs if row["segment"] == "all"), default=0)
    lead = (
        f"Ranking the full catalogue for {plural(users, 'held-out person', 'held-out people')}: {split} split, "
        f"{str(protocol).replace('_', ' ')} protocol, lists of {k}. The baselines need no training."
    )
    return f"<p>{esc(lead)}</p>" + pair(
        figure(f"NDCG@{k} of model {about} and the baselines", _against_baselines(theirs, about)),
        figure(f"NDCG@{k} by length of history", _by_segment(theirs, about)),
    ) + "<h3>All measurements</h3>" + _measurements(rows, about, versions, runs)  # fmt: skip


def _contenders(about: int) -> list[tuple[str, str]]:
    return [("", f"Model {about}"), *((name, line) for name, (line, _) in BASELINE_LABELS.items())]


def _against_baselines(rows: Rows, about: int) -> str:
    measured = [(name, value(rows, about, model, "ndcg")) for model, name in _contenders(about)]
    found = [(name, value) for name, value in measured if value is not None]
    return charts.bars(found, [decimal(value) for _, value in found])


def _by_segment(rows: Rows, about: int) -> str:
    """A table of segments; the best value in each row is bold, and a baseline without measurements has no column."""
    measured = {row["model"] for row in rows if not row["model_version"]}
    heads = {"": "Model", **{name: column for name, (_, column) in BASELINE_LABELS.items() if name in measured}}
    known = {row["segment"]: row["users"] for row in rows if row["metric"] == "ndcg"}
    segments = [name for name in (*SEGMENTS, *sorted(set(known) - set(SEGMENTS))) if known.get(name)]
    cells = []
    for segment in segments:
        values = [value(rows, about, model, "ndcg", segment) for model in heads]
        best = max((value for value in values if value is not None), default=None)
        name = f"{esc(SEGMENTS.get(segment, segment))}<small>{plural(known[segment] or 0, 'person', 'people')}</small>"
        shown = [decimal(value, 3) for value in values]
        cells.append((name, *(f"<b>{text}</b>" if text == decimal(best, 3) != "–" else text for text in shown)))
    return table(("", *heads.values()), cells)


def _measurements(rows: Rows, about: int, versions: list[int], runs: Runs) -> str:
    """The model with its baselines, then the other versions, each measured on the events held out from it."""
    wanted = [(about, model, name) for model, name in _contenders(about)]
    wanted += [(version, "", f"Model {version}") for version in versions if version != about]
    lines: list[tuple[str, ...]] = []
    for version, model, name in wanted:
        values = [value(rows, version, model, metric) for metric in METRICS]
        if any(value is not None for value in values):
            digits = [2 if metric == "novelty" else 3 for metric in METRICS]
            lines.append((_contender(rows, version, model, name, runs), *map(decimal, values, digits)))
    return table(("", *(HEADS.get(metric, metric.capitalize()) for metric in METRICS)), lines, strong=(0,))


def _contender(rows: Rows, version: int, model: str, name: str, runs: Runs) -> str:
    if model:
        return esc(name)
    kind = next((row["model"] for row in rows if row["version"] == version and row["model_version"]), "")
    tags = " · ".join(tag for tag in (plain(kind), runs.role(version)) if tag)
    return f"{esc(name)}<small>{esc(tags)}</small>"
