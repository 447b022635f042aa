"""The files that the site produces: access logs, API lines, an export, a catalogue, and dirty data.

Every interaction of MovieLens becomes exactly one event, by its stars:

    =====  ========  ==============================================================
    stars  event     where it is written (history: all in one CSV export)
    =====  ========  ==============================================================
    3      view      ``GET /film/<id>`` in a gzip combined access log, one per day
    1 2 4  rating    API JSON lines with the stars as value, one file per day
    5      purchase  API JSON lines with an ``event_id``
    =====  ========  ==============================================================

Searches, assets, bots and malformed lines are made up; none is an interaction of MovieLens.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote_plus

from movielens import Film, Interaction
from replay import Actions

BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_6) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605",
    "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
)
CRAWLERS = (
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
)
ASSETS = ("/static/site.css", "/static/player.js", "/favicon.ico", "/film/poster.jpg?w=320", "/healthz")
EXPORT_WORD = {"view": "pv", "rating": "rate", "purchase": "buy"}


def write_catalogue(landing: Path, films: list[Film]) -> None:
    """The site's films as JSON lines. One film is not available, so it must never be recommended."""
    rows: list[dict[str, object]] = [
        {
            "item_id": film.item_id, "title": film.title, "category": film.category, "text": film.text,
            "price": None, "available": film.title != "unkonwn",
        }
        for film in films
    ]  # fmt: skip
    _place(landing / "catalog" / "films.jsonl", _json_lines(rows))


def write_history(landing: Path, history: list[Interaction]) -> None:
    """The years before the logs begin: one CSV export, with some duplicate and some malformed rows."""
    draw = random.Random("history")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["member", "film", "action", "stars", "at"])
    for one in history:
        value = one.stars if one.event_type == "rating" else ""
        row = [one.user, one.film, EXPORT_WORD[one.event_type], value, f"{one.time:%Y-%m-%d %H:%M:%S}"]
        for _ in range(2 if draw.random() < 0.0005 else 1):
            rows.writerow(row)
    rows.writerow(["u7", "12"])
    rows.writerow(["u7", "12", "rate", 4, "some day in May"])
    rows.writerow(["", "12", "buy", "", "2020-05-01 10:00:00"])
    _place(landing / "csv" / "history.csv", text.getvalue().encode())


def write_traffic(landing: Path, interactions: list[Interaction], films: list[Film], seed: int) -> None:
    """Days of traffic: one access log and one API file per day, with the noise of a real site's logs."""
    titles = {film.item_id: film.title for film in films}
    days: dict[str, list[Interaction]] = defaultdict(list)
    for one in interactions:
        days[f"{one.time:%Y-%m-%d}"].append(one)
    overlap: list[str] = []
    names = sorted(days)
    for number, day in enumerate(names):
        draw = random.Random(f"{seed}:{number}")
        log = [*overlap, *_access_log(days[day], titles, draw)]
        overlap = log[-5:]  # rotation copies the last lines into the next file
        log += _crawlers(days[day][0].time, films, draw)
        if number == len(names) // 2:
            log += _regular_visitor(days[day][0].time, films)
            log += ["\x16\x03\x01 not HTTP at all", '198.51.100.9 - - [yesterday] "GET / HTTP/1.1" 200 12 "-" "-"']
        packed = _gzip("".join(line + "\n" for line in log).encode())
        _place(landing / "web" / f"{day}.log.gz", packed)
        lines = [_api_line(one) for one in days[day] if one.event_type != "view"]
        lines += [line for line in lines if draw.random() < 0.01]
        if number % 5 == 0:
            lines += _broken_lines(days[day][0].time)
        text = "".join(line + "\n" for line in lines).encode()
        gzipped = number % 2 == 0
        _place(landing / "api" / f"{day}.jsonl{'.gz' if gzipped else ''}", _gzip(text) if gzipped else text)
        if number == 1:
            _place(landing / "api" / f"{day}-sent-again.jsonl", text)
        if number == len(names) - 1:
            # the mirror's disk was full: the same lines, cut in the middle of the gzip stream
            _place(landing / "web" / f"{day}-mirror.log.gz", packed[: len(packed) * 2 // 3])


def write_live(landing: Path, interactions: list[Interaction], films: list[Film], name: str) -> None:
    """A few minutes of traffic: a plain access log and an API file."""
    titles = {film.item_id: film.title for film in films}
    log = _access_log(interactions, titles, random.Random(name))
    _place(landing / "web" / f"live-{name}.log", "".join(line + "\n" for line in log).encode())
    lines = [_api_line(one) for one in interactions if one.event_type != "view"]
    _place(landing / "api" / f"live-{name}.jsonl", "".join(line + "\n" for line in lines).encode())


def write_actions(landing: Path, actions: Actions, films: list[Film], name: str) -> None:
    """Actions on lists as API lines (a purchase for 5 stars, else a click); all other interactions as ordinary live traffic."""
    lines = [
        _json({**_api(one), "event_type": "purchase" if one.stars == 5 else "click", "value": None})
        for one in actions.taken
    ]
    lines += [_json({**_api(one), "event_type": "click", "value": None}) for one in actions.simulated]
    _place(landing / "api" / f"lists-{name}.jsonl", "".join(line + "\n" for line in lines).encode())
    write_live(landing, actions.elsewhere, films, name)


def _api(one: Interaction) -> dict[str, object]:
    row: dict[str, object] = {"user_id": one.user, "item_id": one.film, "timestamp": one.time.isoformat()}
    if one.stars == 5:
        row["event_id"] = f"order-{one.user}-{one.film}"
    return row


def _api_line(one: Interaction) -> str:
    value = float(one.stars) if one.event_type == "rating" else None
    return _json({**_api(one), "event_type": one.event_type, "value": value})


def _access_log(interactions: list[Interaction], titles: dict[str, str], draw: random.Random) -> list[str]:
    """Requests of signed-in members for film pages, searches, assets, and missing pages."""
    lines = []
    for one in interactions:
        if one.event_type != "view":
            continue
        member = int(one.user[1:])
        address = f"198.51.{member % 256}.{1 + member // 256}"
        agent = BROWSERS[member % len(BROWSERS)]
        slug = re.sub(r"[^a-z0-9]+", "-", titles[one.film].lower()).strip("-")
        if draw.random() < 0.1:
            term = quote_plus(titles[one.film].split()[0])
            lines.append(_request(address, one.user, one.time, f"/search?q={term}", 200, agent))
        lines.append(_request(address, one.user, one.time, f"/film/{one.film}-{slug}", 200, agent))
        for asset in draw.sample(ASSETS, k=draw.randrange(3)):
            lines.append(_request(address, one.user, one.time, asset, 304, agent))
        if draw.random() < 0.02:
            lines.append(_request(address, one.user, one.time, "/film/99999-gone", 404, agent))
    return lines


def _crawlers(day: datetime, films: list[Film], draw: random.Random) -> list[str]:
    """Search engines that read a few film pages each day and identify themselves."""
    lines = []
    for agent in CRAWLERS:
        for film in draw.sample(films, k=8):
            lines.append(_request("192.0.2.77", "-", day, f"/film/{film.item_id}", 200, agent))
    return lines


def _regular_visitor(day: datetime, films: list[Film]) -> list[str]:
    """A price watcher that poses as a browser and sends a request every ten seconds."""
    return [
        _request("203.0.113.5", "-", day + timedelta(seconds=10 * n), f"/film/{film.item_id}", 200, BROWSERS[0])
        for n, film in enumerate(films[:180])
    ]


def _request(address: str, user: str, time: datetime, target: str, status: int, agent: str) -> str:
    size = 200 + len(target) * 37
    return f'{address} - {user} [{time:%d/%b/%Y:%H:%M:%S +0000}] "GET {target} HTTP/1.1" {status} {size} "-" "{agent}"'


def _broken_lines(day: datetime) -> list[str]:
    """One line of each kind of error that an API can produce."""
    sound: dict[str, object] = {"user_id": "u7", "item_id": "12", "event_type": "rating", "timestamp": day.isoformat()}
    return [
        '{"user_id": "u7", "item_id": "12", "event_ty',
        _json({**sound, "user_id": None, "value": 4.0}),
        _json({**sound, "event_type": "hover"}),
        _json({**sound, "item_id": None}),
        _json({**sound, "value": 4e12}),
        _json({**sound, "timestamp": 0}),
        _json({**sound, "timestamp": (day + timedelta(days=900)).isoformat()}),
    ]


def _json(row: dict[str, object]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _json_lines(rows: Iterable[dict[str, object]]) -> bytes:
    return "".join(_json(row) + "\n" for row in rows).encode()


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _place(file: Path, data: bytes) -> None:
    """Write under a name that ingest skips, then rename: ingest reads a file only once, so it must be complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    hidden = file.with_name("." + file.name)
    hidden.write_bytes(data)
    os.replace(hidden, file)
