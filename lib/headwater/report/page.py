"""The page itself: its header, and all sections inserted into the template."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib import resources
from string import Template
from typing import Any

from headwater.report import data, quality, sections
from headwater.report.data import Freshness
from headwater.report.markup import decimal, esc, moment, percent, plural, whole
from headwater.report.quality import Rows
from headwater.report.result import Result
from headwater.report.runs import Runs
from headwater.tables import Warehouse


@dataclass(frozen=True)
class Page:
    html: str
    missing: list[str]
    """Titles of the sections with nothing to show."""


def build(warehouse: Warehouse, runs: Runs, now: datetime) -> Page:
    """The whole page, about the champion, else the version behind most lists, else the newest version measured. A table
    that is missing or cannot be read affects only its own section."""
    states = data.table_states(warehouse)
    head = data.headline(warehouse)
    served = runs.champion or head["served_version"]
    quality_of = partial(data.quality, about=served)
    questions = (data.freshness, quality_of, data.promotions, _feedback, data.variety, data.people)
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda question: Result.of(question, warehouse), questions)
        fresh, measured, decided, acted, varied, known = results
    version = served or max((row["version"] for row in measured.value or []), default=None)
    shown = [
        ("loop", "The loop", sections.loop(states, warehouse, now.timestamp())),
        ("freshness", "Freshness", fresh.show(lambda found: sections.freshness(found, now.timestamp()))),
        ("quality", "Quality", measured.show(lambda rows: quality.section(rows, version, runs))),
        ("training", "Training", sections.training(runs)),
        ("gate", "The gate", decided.show(sections.gate)),
        ("feedback", "Feedback", acted.show(lambda found: sections.feedback(*found))),
        ("variety", "Variety", varied.show(sections.variety)),
        ("people", "A few people", known.show(sections.people)),
    ]
    here = resources.files("headwater.report")
    html = Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        style=(here / "page.css").read_text(encoding="utf-8"),
        made=f"{now:%-d %B %Y, %H:%M} UTC",
        summary=summary(head, fresh.value, measured.value, version),
        tiles=tiles(head, fresh.value, measured.value, version),
        links="".join(f'<a href="#{name}">{esc(title)}</a>' for name, title, _ in shown),
        sections="".join(f'<section id="{name}"><h2>{esc(title)}</h2>{body}</section>' for name, title, body in shown),
    )
    return Page(html, [title for _, title, body in shown if body.startswith('<p class="missing">')])


def summary(head: dict[str, Any], fresh: Freshness | None, rows: Rows | None, version: int | None) -> str:
    """The page in two or three sentences."""
    if not head["users"]:
        return "There are no lists to show. The sections below say why, and name the jobs to run."
    said = [f"{plural(head['users'], 'person holds', 'people hold')} a list of {whole(head['list_length'])}."]
    if fresh and fresh.users:
        said.append(f"{percent(fresh.up_to_date, fresh.users)} of all people have one that reflects their last action.")
    model, (popular, by_count) = quality.value(rows, version, "", "ndcg"), quality.popularity(rows, version)
    if model is not None and by_count:
        said.append(f"Model {version} ranks people’s next actions {_compared(model / by_count)} {popular}.")
        simple = {label: quality.value(rows, version, name, "ndcg") or 0.0 for name, label in quality.SIMPLE.items()}
        best = max(simple, key=lambda label: simple[label])
        if simple[best] > model:
            said.append(f"{best}, without any training, would rank them {_compared(simple[best] / model)} the model.")
    return esc(" ".join(said))


def _compared(ratio: float) -> str:
    """A ratio in words, for use before the name of the baseline."""
    if ratio >= 1.5:
        return f"{ratio:.1f} times as well as"
    if round(abs(ratio - 1) * 100) == 0:
        return "as well as"
    return f"{abs(ratio - 1):.0%} {'better' if ratio > 1 else 'worse'} than"


def tiles(head: dict[str, Any], fresh: Freshness | None, rows: Rows | None, version: int | None) -> str:
    """The four numbers to look at first."""
    model, (popular, by_count) = quality.value(rows, version, "", "ndcg"), quality.popularity(rows, version)
    k = next((row["k"] for row in rows or [] if row["version"] == version), 10)
    length = f"{whole(head['list_length'])} items each" if head["users"] else "no lists yet"
    shown = [
        ("People with a list", whole(head["users"]), length),
        ("Items", whole(head["items"]), "in the catalogue"),
        (
            f"NDCG@{k}",
            decimal(model, 3),
            f"model {version}; {popular} {decimal(by_count, 3)}" if model is not None else "not measured yet",
        ),
        (
            "People up to date",
            percent(fresh.up_to_date, fresh.users) if fresh else "–",
            f"newest {moment(fresh.newest_list)} UTC" if fresh and fresh.newest_list else "no lists yet",
        ),
    ]
    return "".join(
        f'<div class="tile"><span>{esc(name)}</span><strong>{esc(value)}</strong><small>{esc(note)}</small></div>'
        for name, value, note in shown
    )


def _feedback(warehouse: Warehouse) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return data.feedback_by_rank(warehouse), data.feedback_by_type(warehouse)
