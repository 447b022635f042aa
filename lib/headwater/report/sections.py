"""One function per section, from values of ``data`` to HTML; the quality section has its own file."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from headwater.report import charts, data
from headwater.report.data import Freshness, Person, TableState
from headwater.report.markup import duration, esc, figure, missing, moment, pair, percent, plain, plural, table, whole
from headwater.report.result import Result
from headwater.report.runs import Runs
from headwater.tables import Warehouse

COUNTED = (("Events by type", "events", "event_type"), ("Quarantine by reason", "quarantine", "reason"))
DID = {
    "view": "viewed",
    "search": "searched",
    "click": "clicked",
    "add_to_cart": "to cart",
    "purchase": "bought",
    "rating": "rated",
}
"""The verb of each event type, for use before a title."""
MAX_RANKS = 40
"""The largest number of columns in a figure."""


def loop(states: list[TableState], warehouse: Warehouse, now: float) -> str:
    """The state of every table, and the lines that ingest accepted and refused."""
    if all(state.version is None for state in states):
        return missing("Nothing to show yet: there are no tables; jobs/ingest_events.py creates the first ones.")
    rows = [
        (
            f"<code>{esc(state.name)}</code><small>{esc(state.problem or _last_job(state))}</small>",
            whole(state.rows),
            whole(state.version),
            _ago(now, state.changed_at),
            esc(_still_unread(state)),
        )
        for state in states
    ]
    parts = [
        "<p>Every table, the job that last changed it, its rows and its version, and the jobs that have yet to read what is "
        "new in it.</p>",
        table(("Table", "Rows", "Version", "Changed", "Not yet read by"), rows, text=(0, 4)),
    ]
    counts = Result.of(data.ingested, warehouse).value
    if counts and counts["rows_in"]:
        parts.append(f"<h3>What came in</h3><p>{_ingest_sentence(counts)}</p>")
    shown = []
    for title, name, column in COUNTED:
        found = Result.of(partial(data.counts_by, table=name, column=column), warehouse).value
        if found:
            labels = [whole(count) for _, count in found]
            shown.append(figure(title, charts.bars([(plain(label), n) for label, n in found], labels)))
        elif found is not None and name == "quarantine":
            shown.append(figure(title, "<p>Nothing was refused.</p>"))
    return "".join(parts) + pair(*shown)


def _last_job(state: TableState) -> str:
    return "not created yet" if state.version is None else state.job or "–"


def _still_unread(state: TableState) -> str:
    counts = {
        job: "all" if count is None else plural(count, "commit", "commits") for job, count in state.unread.items()
    }
    return ", ".join(f"{job}: {commits}" for job, commits in counts.items()) or "–"


def _ago(now: float, moment: float | None) -> str:
    return "–" if moment is None else f"{duration(round(max(0.0, now - moment)))} ago"


def _ingest_sentence(counts: dict[str, int]) -> str:
    read, taken, refused, doubled, ignored = (counts[name] for name in data.INGEST_COUNTS)
    return esc(
        f"Of {plural(read, 'line', 'lines')} read: {whole(taken)} became events, {whole(refused)} quarantined "
        f"({percent(refused, read)}), {whole(doubled)} duplicates, {whole(ignored)} ignored (no wanted action)."
    )


def freshness(found: Freshness, now: float) -> str:
    """How old lists are, and how many users have events newer than their list."""
    if not found.newest_list:
        return missing("Nothing to show yet: topn has no lists; run jobs/score_topn.py.")
    parts = [f"<p>The newest list was made {esc(_ago(now, found.newest_list))}."]
    if found.wait_median is not None:
        parts.append(
            f" From a change in someone’s history to the list made of it, half waited at most "
            f"{esc(duration(found.wait_median))}, 19 in 20 at most {esc(duration(found.wait_p95))}."
        )
    state = [
        ("Reflect their user’s last event", found.up_to_date),
        ("Behind: newer events exist", found.behind),
        ("No list yet", found.without_list),
    ]
    labels = [f"{whole(count)} · {percent(count, found.users)}" for _, count in state]
    ages = [(label, float(count)) for label, count in found.ages]
    return (
        "".join(parts)
        + "</p>"
        + pair(
            figure("Lists by state", charts.bars(state, labels, limit=found.users)),
            figure(
                "Age of lists",
                charts.columns(ages, [whole(count) if count else "" for _, count in found.ages]),
                "from the user’s last event to the making of the list",
            ),
        )
    )


def training(runs: Runs) -> str:
    """Loss and held-out quality by epoch, from MLflow."""
    if runs.problem:
        return missing(runs.problem)
    figures = []
    for version, curves in sorted(runs.curves.items(), key=lambda pair: pair[0] != runs.champion):
        who = f"Model {version}" + (f", {runs.role(version)}" if runs.role(version) else "")
        for what, part in (("loss", "loss"), ("held-out quality", "epoch_ndcg")):
            drawn = [(name, points) for name, points in sorted(curves.items()) if part in name and len(points) > 1]
            if drawn:
                figures.append(figure(f"{who}: {what}", charts.lines(_named(drawn), "epoch")))
    if not figures:
        return missing("The runs behind champion and challenger logged no curves of more than one epoch.")
    return "<p>One point per epoch. Training stops when held-out quality has not risen for a while.</p>" + pair(
        *figures
    )


def _named(curves: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The curves with names in words: ``epoch_ndcg_10`` is NDCG@10."""
    return [(plain(re.sub(r"^epoch_ndcg_(\d+)$", r"NDCG@\1", name)), points) for name, points in curves]


def gate(rows: list[dict[str, Any]]) -> str:
    """The decisions of the gate on each model, with their reasons."""
    if not rows:
        return missing(
            "Nothing to show yet: no challenger has been through the gate; jobs/promote_model.py decides on one."
        )
    lines = [
        f'<li><span class="badge {"yes" if row["decision"] == "promoted" else "no"}">{esc(row["decision"])}</span>'
        f"<div><b>{esc(_decision(row))}</b><p>{esc(row['reason'])}</p></div><time>{esc(moment(row['at']))}</time></li>"
        for row in rows
    ]
    return (
        "<p>A challenger becomes champion only if it does well enough on the same held-out actions.</p>"
        f'<ol class="audit">{"".join(lines)}</ol>'
    )


def _decision(row: dict[str, Any]) -> str:
    against = f" against model {row['champion_version']}" if row["champion_version"] else ""
    if row["action"] == "rollback":
        return f"Back to model {row['challenger_version']}"
    return f"Model {row['challenger_version']}{against}"


def feedback(by_rank: list[dict[str, Any]], by_type: list[dict[str, Any]]) -> str:
    """People's actions on the items they were shown, by rank and by type."""
    actions, reward = sum(row["actions"] for row in by_rank), sum(row["reward"] for row in by_rank)
    shown, acted = sum(row["shown"] for row in by_rank), sum(row["rows_acted_on"] for row in by_rank)
    if not actions:
        return missing(
            "No action has been attributed to a list yet. jobs/collect_feedback.py does so once people act on lists."
        )
    lead = (
        f"{plural(actions, 'action', 'actions')} on shown items, worth a reward of {reward:.1f}. Of {whole(shown)} "
        f"rows published, {percent(acted, shown, 2)} were acted on. Not all were seen, so compare only ranks."
    )
    first = by_rank[:MAX_RANKS]
    until = f"; the first {MAX_RANKS} ranks" if len(first) < len(by_rank) else ""
    rates = [1_000 * row["rows_acted_on"] / row["shown"] for row in first]
    ranks = [str(row["rank"]) for row in first]
    kinds = [(plain(row["event_type"]), row["actions"]) for row in by_type]
    labels = [f"{whole(row['actions'])} · reward {row['reward']:.1f}" for row in by_type]
    rewards = [row["reward"] for row in first]
    return f"<p>{esc(lead)}</p>" + pair(
        figure(
            "Acted on, by rank",
            charts.columns(list(zip(ranks, rates, strict=True)), [f"{rate:.1f}" for rate in rates]),
            "rows acted on, per thousand published" + until,
        ),
        figure(
            "Reward, by rank",
            charts.columns(list(zip(ranks, rewards, strict=True)), [f"{value:.0f}" for value in rewards]),
            "sum over actions, weighted by type" + until,
        ),
        figure("Actions, by type", charts.bars(kinds, labels)),
    )


def variety(found: dict[str, Any]) -> str:
    """The share of the catalogue that the lists show, and how evenly."""
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
    strategies = [(plain(name), count) for name, count in found["strategies"]]
    figures = [figure("Most shown items", charts.bars(found["top"], shares), "share of all places")]
    if len(strategies) > 1:
        figures.append(figure("Places by strategy", charts.bars(strategies, ways, limit=found["slots"])))
    else:
        lead += f" All places are from one strategy, {strategies[0][0]}."
    return f"<p>{esc(lead)}</p>" + pair(*figures)


def people(found: list[Person]) -> str:
    """A few people: their last events, newest first, beside their current lists."""
    if not found:
        return missing("Nothing to show yet: nobody has a list; run jobs/score_topn.py.")
    return (
        "<p>The same few each time, chosen by a hash; one of them with little history. Newest events first.</p>"
        + "".join(_person(person) for person in found)
    )


def _person(person: Person) -> str:
    did = "".join(
        f'<li><span class="verb">{esc(DID.get(e["event_type"], plain(e["event_type"])))}</span>'
        f'<span class="what">{esc(e["title"] or "an unknown item")}</span>'
        f"<time>{esc(moment(e['at']))}</time></li>"
        for e in person.events
    )
    gets = "".join(
        f'<li><span class="what">{esc(row["title"])}</span><span class="why">{esc(row["reason"])}'
        f"<i>{esc(plain(row['strategy']))}</i></span></li>"
        for row in person.items
    )
    sections = "".join(
        f"<dt>{esc(heading)}</dt><dd>{esc(' · '.join(titles))}</dd>" for heading, titles in person.sections
    )
    return (
        f'<article><h3>{esc(_brief(person.user))}</h3><div class="pair">'
        f'<div><h4>Did</h4><ul class="did">{did}</ul></div><div><h4>Is shown</h4><ol class="gets">{gets}</ol></div>'
        "</div>" + (f'<dl class="sections">{sections}</dl>' if sections else "") + "</article>"
    )


def _brief(user: str) -> str:
    """The user id for a heading; one longer than 24 characters, such as a pseudonym of 64 hex digits, is cut to 12."""
    return user if len(user) <= 24 else user[:12] + "…"
