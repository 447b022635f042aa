"""The page itself: one function a section, from values of ``data`` to HTML; ``build`` puts them into the template."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib import resources
from string import Template
from typing import Any, TypeVar

from headwater.errors import TableError
from headwater.report import charts, data
from headwater.report.data import Freshness, Person, TableState
from headwater.report.markup import decimal, duration, esc, figure, moment, pair, percent, plural, table, whole
from headwater.report.runs import Runs
from headwater.tables import Warehouse

T = TypeVar("T")
NAMES = {
    "as_served": "Its lists as served",
    "item_transitions": "Item transitions",
    "recent_popularity": "Recent popularity",
    "popularity": "Popularity",
}
METRICS = ("ndcg", "hit_rate", "mrr", "coverage", "novelty", "diversity")
HEADS = {"ndcg": "NDCG", "hit_rate": "Hit rate", "mrr": "MRR"}
SEGMENTS = {"all": "Everybody", "new": "New (0–2 events)", "light": "Light (3–19)", "heavy": "Heavy (20 and more)"}
COUNTED = (("Events by type", "events", "event_type"), ("Quarantine by reason", "quarantine", "reason"))
VERBS = {"view": "viewed", "click": "clicked", "add_to_cart": "to cart", "purchase": "bought", "rating": "rated"}


@dataclass(frozen=True)
class Page:
    html: str
    missing: list[str]
    """Titles of the sections that had nothing to show."""


@dataclass(frozen=True)
class Asked:
    """A value, or the sentence that says why there is none."""

    value: Any = None
    problem: str = ""

    @classmethod
    def of(cls, ask: Callable[[Warehouse], T], warehouse: Warehouse) -> Asked:
        try:
            return cls(ask(warehouse))
        except TableError as error:
            return cls(problem=f"Nothing to show yet: {error}.")

    def show(self, section: Callable[[Any], str]) -> str:
        return missing(self.problem) if self.problem else section(self.value)


def missing(sentence: str) -> str:
    return f'<p class="missing">{esc(sentence)}</p>'


def build(warehouse: Warehouse, runs: Runs, now: datetime) -> Page:
    """The whole page. A missing table costs its section only."""
    states = data.table_states(warehouse)
    questions = (data.freshness, data.quality, data.promotions, _feedback, data.variety, data.people)
    with ThreadPoolExecutor(4) as pool:
        asked = pool.map(lambda question: Asked.of(question, warehouse), questions)
        head = data.headline(warehouse)
        fresh, measured, decided, acted, varied, known = asked
    version = _champion(runs, head, measured)
    sections = [
        ("loop", "The loop", loop(states, warehouse, now.timestamp())),
        ("freshness", "Freshness", fresh.show(lambda found: freshness(found, now.timestamp()))),
        ("quality", "Quality", measured.show(lambda rows: quality(rows, version, runs))),
        ("training", "Training", training(runs)),
        ("gate", "The gate", decided.show(gate)),
        ("feedback", "Feedback", acted.show(lambda found: feedback(*found))),
        ("variety", "Variety", varied.show(variety)),
        ("people", "A few people", known.show(people)),
    ]
    here = resources.files("headwater.report")
    html = Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        style=(here / "page.css").read_text(encoding="utf-8"),
        made=f"{now:%-d %B %Y, %H:%M} UTC",
        summary=summary(head, fresh.value, measured.value, version),
        tiles=tiles(head, fresh.value, measured.value, version),
        links="".join(f'<a href="#{name}">{esc(title)}</a>' for name, title, _ in sections),
        sections="".join(
            f'<section id="{name}"><h2>{esc(title)}</h2>{body}</section>' for name, title, body in sections
        ),
    )
    return Page(html, [title for _, title, body in sections if body.startswith('<p class="missing">')])


def _champion(runs: Runs, head: dict[str, Any], measured: Asked) -> int | None:
    """The version that the page is about: the champion, else the one behind most lists, else the newest measured."""
    versions = [row["version"] for row in measured.value or []]
    return runs.champion or head["served_version"] or max(versions, default=None)


def _value(
    rows: list[dict[str, Any]] | None, version: int | None, model: str, metric: str, segment: str = "all"
) -> float | None:
    """One measurement; ``model`` is a baseline's name, or empty for the model itself."""
    for row in rows or []:
        named = row["model"] if row["model"] in NAMES else ""
        if (row["version"], named, row["metric"], row["segment"]) == (version, model, metric, segment):
            return row["value"]
    return None


def summary(
    head: dict[str, Any], fresh: Freshness | None, rows: list[dict[str, Any]] | None, version: int | None
) -> str:
    """The page in two or three sentences."""
    if not head["users"]:
        return "No lists have been published yet. What stands below says which jobs are still to run."
    said = [f"{plural(head['users'], 'person holds', 'people hold')} a list of {whole(head['list_length'])}."]
    if fresh and fresh.users:
        said.append(f"{percent(fresh.up_to_date, fresh.users)} of all people have one that knows what they did last.")
    model, recent = _value(rows, version, "", "ndcg"), _value(rows, version, "recent_popularity", "ndcg")
    if model is not None and recent:
        said.append(f"Model {version} ranks what people did next {_compared(model / recent)} recent popularity.")
    return esc(" ".join(said))


def _compared(ratio: float) -> str:
    """A ratio in words, to stand before what was compared with."""
    if ratio >= 1.5:
        return f"{ratio:.1f} times as well as"
    if round(abs(ratio - 1) * 100) == 0:
        return "as well as"
    return f"{abs(ratio - 1):.0%} {'better' if ratio > 1 else 'worse'} than"


def tiles(head: dict[str, Any], fresh: Freshness | None, rows: list[dict[str, Any]] | None, version: int | None) -> str:
    """The four numbers to look at first."""
    model, recent = _value(rows, version, "", "ndcg"), _value(rows, version, "recent_popularity", "ndcg")
    k = next((row["k"] for row in rows or [] if row["version"] == version), 10)
    length = f"{whole(head['list_length'])} items each" if head["users"] else "no lists yet"
    shown = [
        ("People with a list", whole(head["users"]), length),
        ("Items", whole(head["items"]), "in the catalogue"),
        (
            f"NDCG@{k}",
            decimal(model, 3),
            f"model {version}; recent popularity {decimal(recent, 3)}" if model is not None else "not measured yet",
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


def loop(states: list[TableState], warehouse: Warehouse, now: float) -> str:
    """What every table holds and when it changed; what ingest took and refused."""
    if all(state.rows is None for state in states):
        return missing("Nothing to show yet: there are no tables; jobs/ingest_events.py makes the first.")
    rows = [
        (
            f"<code>{esc(state.name)}</code><small>{esc(_last_job(state))}</small>",
            whole(state.rows),
            whole(state.version),
            _ago(now, state.changed_at),
        )
        for state in states
    ]
    parts = [
        "<p>Every table, the job that changed it last, its rows and its version.</p>",
        table(("Table", "Rows", "Version", "Changed"), rows),
    ]
    counts = Asked.of(data.ingested, warehouse).value
    if counts and counts["rows_in"]:
        parts.append(f"<h3>What came in</h3><p>{_ingest_sentence(counts)}</p>")
    shown = []
    for title, name, column in COUNTED:
        found = Asked.of(partial(data.counts_by, table=name, column=column), warehouse).value
        if found:
            labels = [whole(count) for _, count in found]
            shown.append(figure(title, charts.bars([(_plain(label), n) for label, n in found], labels)))
        elif found is not None and name == "quarantine":
            shown.append(figure(title, "<p>Nothing was refused.</p>"))
    return "".join(parts) + pair(*shown)


def _last_job(state: TableState) -> str:
    return "not made yet" if state.rows is None else state.job or "–"


def _ago(now: float, moment: float | None) -> str:
    return "–" if moment is None else f"{duration(round(max(0.0, now - moment)))} ago"


def _ingest_sentence(counts: dict[str, int]) -> str:
    read, taken, refused, doubled, ignored = (counts[name] for name in data.INGEST_COUNTS)
    return esc(
        f"Of {plural(read, 'line', 'lines')} read, {whole(taken)} became events, {whole(refused)} are in quarantine "
        f"({percent(refused, read)}), {whole(doubled)} were there already, and {whole(ignored)} no rule calls an action."
    )


def freshness(found: Freshness, now: float) -> str:
    """How old lists are, and who did something that their list does not know of."""
    if not found.newest_list:
        return missing("Nothing to show yet: topn has no lists; run jobs/score_topn.py.")
    parts = [f"<p>The newest list was made {esc(_ago(now, found.newest_list))}."]
    if found.wait_median is not None:
        parts.append(
            f" From a change in someone’s history to the list made of it, half waited at most "
            f"{esc(duration(found.wait_median))}, 19 in 20 at most {esc(duration(found.wait_most))}."
        )
    state = [
        ("Know their user’s last event", found.up_to_date),
        ("Behind: newer events are in", found.behind),
        ("No list yet", found.without),
    ]
    labels = [f"{whole(count)} · {percent(count, found.users)}" for _, count in state]
    ages = [(label, float(count)) for label, count in found.ages]
    return (
        "".join(parts)
        + "</p>"
        + pair(
            figure("Lists and what they know", charts.bars(state, labels, limit=found.users)),
            figure(
                "Age of lists",
                charts.columns(ages, [whole(count) if count else "" for _, count in found.ages]),
                "from the user’s last event to the making of the list",
            ),
        )
    )


def quality(rows: list[dict[str, Any]], version: int | None, runs: Runs) -> str:
    """The champion against the three baselines, by segment, and all versions in one table."""
    if not rows:
        return missing("Nothing to show yet: model_metrics has no rows; run jobs/evaluate_model.py.")
    versions = sorted({row["version"] for row in rows}, reverse=True)
    about: int = version if version is not None and version in versions else versions[0]
    theirs = [row for row in rows if row["version"] == about]
    k, split, protocol = theirs[0]["k"], theirs[0]["split"], theirs[0]["protocol"]
    users = max((row["users"] or 0 for row in theirs if row["segment"] == "all"), default=0)
    lead = (
        f"Ranking the full catalogue for {plural(users, 'held-out person', 'held-out people')}: {split} split, "
        f"{str(protocol).replace('_', ' ')} protocol, lists of {k}. What the model is held against needs no training."
    )
    return f"<p>{esc(lead)}</p>" + pair(
        figure(f"NDCG@{k} of model {about} and the baselines", _against_baselines(theirs, about)),
        figure(f"NDCG@{k} by how much is known of a person", _by_segment(theirs, about)),
    ) + "<h3>All measurements</h3>" + _measurements(rows, about, versions, runs)  # fmt: skip


def _contenders(about: int) -> list[tuple[str, str]]:
    return [("", f"Model {about}"), *NAMES.items()]


def _against_baselines(rows: list[dict[str, Any]], about: int) -> str:
    measured = [(name, _value(rows, about, model, "ndcg")) for model, name in _contenders(about)]
    found = [(name, value) for name, value in measured if value is not None]
    return charts.bars(found, [decimal(value) for _, value in found])


def _by_segment(rows: list[dict[str, Any]], about: int) -> str:
    """A table of segments; the best of each row stands out."""
    known = {row["segment"]: row["users"] for row in rows if row["metric"] == "ndcg"}
    segments = [name for name in (*SEGMENTS, *sorted(set(known) - set(SEGMENTS))) if known.get(name)]
    cells = []
    for segment in segments:
        values = [_value(rows, about, model, "ndcg", segment) for model, _ in _contenders(about)]
        best = max((value for value in values if value is not None), default=None)
        name = f"{esc(SEGMENTS.get(segment, segment))}<small>{plural(known[segment] or 0, 'person', 'people')}</small>"
        shown = [decimal(value, 3) for value in values]
        cells.append((name, *(f"<b>{text}</b>" if text == decimal(best, 3) != "–" else text for text in shown)))
    return table(("", "Model", "As served", "Transitions", "Recent", "Popular"), cells)


def _measurements(rows: list[dict[str, Any]], about: int, versions: list[int], runs: Runs) -> str:
    """The model with its baselines, then the other versions, each measured on what was held out from it."""
    wanted = [(about, model, name) for model, name in _contenders(about)]
    wanted += [(version, "", f"Model {version}") for version in versions if version != about]
    lines: list[tuple[str, ...]] = []
    for version, model, name in wanted:
        values = [_value(rows, version, model, metric) for metric in METRICS]
        if any(value is not None for value in values):
            digits = [2 if metric == "novelty" else 3 for metric in METRICS]
            lines.append((_contender(rows, version, model, name, runs), *map(decimal, values, digits)))
    return table(("", *(HEADS.get(metric, metric.capitalize()) for metric in METRICS)), lines, strong=(0,))


def _contender(rows: list[dict[str, Any]], version: int, model: str, name: str, runs: Runs) -> str:
    if model:
        return esc(name)
    kind = next((row["model"] for row in rows if row["version"] == version and row["model"] not in NAMES), "")
    tags = " · ".join(tag for tag in (_plain(kind), runs.role(version)) if tag)
    return f"{esc(name)}<small>{esc(tags)}</small>"


def training(runs: Runs) -> str:
    """Loss and held-out quality by epoch, as MLflow has them."""
    if runs.problem:
        return missing(runs.problem)
    figures = []
    for version, curves in sorted(runs.curves.items(), key=lambda pair: pair[0] != runs.champion):
        who = f"Model {version}" + (f", {runs.role(version)}" if runs.role(version) else "")
        losses = [(name, points) for name, points in sorted(curves.items()) if "loss" in name and len(points) > 1]
        gains = [(name, points) for name, points in sorted(curves.items()) if "ndcg" in name and len(points) > 1]
        if losses:
            figures.append(figure(f"{who}: loss", charts.lines(_named(losses), "epoch")))
        if gains:
            figures.append(figure(f"{who}: held-out quality", charts.lines(_named(gains), "epoch")))
    if not figures:
        return missing("The runs behind champion and challenger logged no curves of more than one epoch.")
    return "<p>One point an epoch. Training stops when held-out quality has not risen for a while.</p>" + pair(*figures)


def _named(curves: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(_plain(name), points) for name, points in curves]


def gate(rows: list[dict[str, Any]]) -> str:
    """Who decided what about which model, and why."""
    if not rows:
        return missing("Nothing to show yet: no model has been through the gate; run jobs/promote_model.py.")
    lines = [
        f'<li><span class="badge {"yes" if row["decision"] == "promoted" else "no"}">{esc(row["decision"])}</span>'
        f"<div><b>{esc(_decision(row))}</b><p>{esc(row['reason'])}</p></div><time>{esc(moment(row['at']))}</time></li>"
        for row in rows
    ]
    return (
        "<p>A challenger becomes champion only if it holds up on the same people, with the same held-out actions.</p>"
        f'<ol class="audit">{"".join(lines)}</ol>'
    )


def _decision(row: dict[str, Any]) -> str:
    standing = f" against model {row['champion_version']}" if row["champion_version"] else ""
    if row["action"] == "rollback":
        return f"Back to model {row['challenger_version']}"
    return f"Model {row['challenger_version']}{standing}"


def _feedback(warehouse: Warehouse) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return data.feedback_by_rank(warehouse), data.feedback_by_type(warehouse)


def feedback(by_rank: list[dict[str, Any]], by_type: list[dict[str, Any]]) -> str:
    """What people did with what they were shown, by the rank it stood at."""
    actions, reward = sum(row["actions"] for row in by_rank), sum(row["reward"] for row in by_rank)
    shown, acted = sum(row["shown"] for row in by_rank), sum(row["rows_acted_on"] for row in by_rank)
    if not actions:
        return missing(
            "No action has been attributed to a list yet. jobs/collect_feedback.py does it once people act on lists."
        )
    lead = (
        f"{plural(actions, 'action', 'actions')} on shown items, worth a reward of {reward:.1f}. Of {whole(shown)} "
        f"rows published, {percent(acted, shown, 2)} were acted on. Published is not seen; compare ranks, not the level."
    )
    rates = [1_000 * row["rows_acted_on"] / row["shown"] for row in by_rank]
    ranks = [str(row["rank"]) for row in by_rank]
    kinds = [(_plain(row["event_type"]), row["actions"]) for row in by_type]
    labels = [f"{whole(row['actions'])} · reward {row['reward']:.1f}" for row in by_type]
    rewards = [row["reward"] for row in by_rank]
    return f"<p>{esc(lead)}</p>" + pair(
        figure(
            "Acted on, by rank",
            charts.columns(list(zip(ranks, rates, strict=True)), [f"{rate:.1f}" for rate in rates]),
            "rows acted on, per thousand published",
        ),
        figure(
            "Reward, by rank",
            charts.columns(list(zip(ranks, rewards, strict=True)), [f"{value:.0f}" for value in rewards]),
            "sum over actions, weighted by type",
        ),
        figure("Actions, by type", charts.bars(kinds, labels)),
    )


def variety(found: dict[str, Any]) -> str:
    """How much of the catalogue the lists show, and how unevenly."""
    if not found["slots"]:
        return missing("Nothing to show yet: topn has no lists; run jobs/score_topn.py.")
    top = sum(count for _, count in found["top"])
    lead = (
        f"The lists show {whole(found['items_shown'])} of {plural(found['items'], 'item', 'items')} "
        f"({percent(found['items_shown'], found['items'])}). The {len(found['top'])} most shown take "
        f"{percent(top, found['slots'])} of all places."
    )
    shares = [percent(count, found["slots"]) for _, count in found["top"]]
    ways = [f"{whole(count)} · {percent(count, found['slots'])}" for _, count in found["strategies"]]
    strategies = [(_plain(name), count) for name, count in found["strategies"]]
    return f"<p>{esc(lead)}</p>" + pair(
        figure("Most shown items", charts.bars(found["top"], shares), "share of all places"),
        figure("Places by strategy", charts.bars(strategies, ways, limit=found["slots"])),
    )


def people(found: list[Person]) -> str:
    """A few people: what they did last, newest first, beside what they are shown now."""
    if not found:
        return missing("Nothing to show yet: nobody has a list; run jobs/score_topn.py.")
    return "<p>The same few each time, chosen by a hash; one of them hardly known. Newest events first.</p>" + "".join(
        _person(person) for person in found
    )


def _person(person: Person) -> str:
    did = "".join(
        f'<li><span class="verb">{esc(VERBS.get(e["event_type"], _plain(e["event_type"])))}</span>'
        f'<span class="what">{esc(e["title"] or "an item no longer known")}</span>'
        f"<time>{esc(moment(e['at']))}</time></li>"
        for e in person.events
    )
    gets = "".join(
        f'<li><span class="what">{esc(row["title"])}</span><span class="why">{esc(row["reason"])}'
        f"<i>{esc(_plain(row['strategy']))}</i></span></li>"
        for row in person.items
    )
    beside = "".join(
        f"<dt>{esc(heading)}</dt><dd>{esc(' · '.join(titles))}</dd>" for heading, titles in person.sections
    )
    return (
        f'<article><h3>{esc(_brief(person.user))}</h3><div class="pair">'
        f'<div><h4>Did</h4><ul class="did">{did}</ul></div><div><h4>Is shown</h4><ol class="gets">{gets}</ol></div>'
        "</div>" + (f'<dl class="sections">{beside}</dl>' if beside else "") + "</article>"
    )


def _brief(user: str) -> str:
    """A pseudonym of 64 hex digits is cut short; a name stays."""
    return user if len(user) <= 24 else user[:12] + "…"


def _plain(name: str) -> str:
    return str(name or "–").replace("_", " ")
