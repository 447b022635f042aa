"""MovieLens-100K, replayed as a film site would see it: access logs, API lines, an export, a catalogue, and dirt.

The data come out of the wheel of RecBole 1.2.1, which ships them: the wheel is fetched with pip, checked against a
pinned SHA-256, kept in ``$HEADWATER_CACHE`` (default ``~/.cache/headwater``) and read as a zip; nothing is installed.

Every interaction of MovieLens becomes exactly one event, by its stars:

    =====  ========  ==============================================================
    stars  event     where it is written (history: all in one CSV export)
    =====  ========  ==============================================================
    3      view      ``GET /film/<id>`` in a gzip combined access log, one a day
    1 2 4  rating    API JSON lines with the stars as value, one file a day
    5      purchase  API JSON lines with an ``event_id``
    =====  ========  ==============================================================

In time order the interactions are cut into the past (all but the newest ``LIVE``), shifted as one block so that it
ends ``QUIET`` before the start of the demo, and the live ones, stamped anew in the same order within the last minutes,
for the nearline rounds and for what users do with the lists they are shown. Only there are clicks made up
(``simulated``); searches, assets, bots and broken lines are made up too, and none is an interaction of MovieLens.

Everything is seeded: the same base time gives the same bytes.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_plus

PACKAGE = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
INSIDE = "recbole/dataset_example/ml-100k/ml-100k."

LIVE = 2_000
ROUND = 250
ROUND_PER_USER = 40
TRAFFIC_DAYS = 30
SECOND_NIGHT_DAYS = 5
QUIET = timedelta(seconds=90)

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
EVENT_OF = {1: "rating", 2: "rating", 3: "view", 4: "rating", 5: "purchase"}
EXPORT_WORD = {"view": "pv", "rating": "rate", "purchase": "buy"}


class DemoError(Exception):
    """The demo cannot go on; one sentence that says why and what to do."""


class Film(NamedTuple):
    item_id: str
    title: str
    category: str
    text: str


class Interaction(NamedTuple):
    """One rating of MovieLens; ``time`` is aware UTC, MovieLens's own until ``plan`` moves it."""

    user: str
    film: str
    stars: int
    time: datetime

    @property
    def event_type(self) -> str:
        return EVENT_OF[self.stars]


class Shown(NamedTuple):
    """One place of a list that a user was shown."""

    rank: int
    film: str
    generated_at: datetime


@dataclass(frozen=True)
class Plan:
    """All interactions in their parts, each in time order; ``rounds`` and ``future`` are stamped when written."""

    history: list[Interaction]
    first_night: list[Interaction]
    second_night: list[Interaction]
    rounds: list[list[Interaction]]
    future: list[Interaction]


def cache_folder() -> Path:
    """Where the wheel is kept between demos."""
    return Path(os.environ.get("HEADWATER_CACHE") or Path.home() / ".cache" / "headwater")


def fetch(cache: Path) -> Path:
    """The pinned wheel, from the cache or through pip. Raises DemoError where it cannot be had or is another file."""
    kept = cache / WHEEL
    if kept.exists() and _digest(kept) == SHA256:
        return kept
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            got = _download(Path(scratch))
            if _digest(got) != SHA256:
                raise DemoError(f"{WHEEL} from your package index is not the pinned one (SHA-256 differs); not used")
            os.replace(got, kept)
    except OSError as error:
        raise DemoError(f"the cache {cache} cannot be written ({error.strerror}); set HEADWATER_CACHE") from None
    return kept


def _download(folder: Path) -> Path:
    """Try each pip at hand: an environment made by uv has none of its own."""
    base = getattr(sys, "_base_executable", sys.executable)
    pips = [[sys.executable, "-m", "pip"], [base, "-m", "pip"], ["python3", "-m", "pip"], ["uvx", "pip"]]
    said = "no pip found"
    for pip in pips:
        if shutil.which(pip[0]) is None:
            continue
        command = [*pip, "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), PACKAGE]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            said = f"pip did not end ({type(error).__name__})"
            continue
        wheel = folder / WHEEL
        if done.returncode == 0 and wheel.exists():
            return wheel
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        if lines and "No module named pip" not in done.stderr:
            said = re.sub(r"\w+://\S+", "the index", lines[-1])[:200]
    raise DemoError(f"{PACKAGE}, which holds MovieLens-100K, cannot be fetched with pip: {said}")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def read_movielens(wheel: Path) -> tuple[list[Interaction], list[Film]]:
    """Interactions by time, user and film, and films by id, out of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        ratings = _table(archive.read(INSIDE + "inter").decode())
        films = _table(archive.read(INSIDE + "item").decode())
    interactions = [
        Interaction(f"u{user}", film, int(float(stars)), datetime.fromtimestamp(int(float(time)), UTC))
        for user, film, stars, time in ratings
    ]
    catalogue = [Film(item, title, genres.split()[0], f"{year}. {genres}") for item, title, year, genres in films]
    return sorted(interactions, key=lambda i: (i.time, i.user, i.film)), catalogue


def _table(text: str) -> Iterator[list[str]]:
    lines = iter(text.splitlines())
    next(lines)  # names with types, such as user_id:token
    return (line.split("\t") for line in lines)


def plan(interactions: list[Interaction], base: datetime) -> Plan:
    """Cut interactions into the parts of the demo and move the past so that it ends ``QUIET`` before ``base``."""
    past, live = interactions[:-LIVE], interactions[-LIVE:]
    end = base - QUIET
    shift = end - past[-1].time
    past = [one._replace(time=one.time + shift) for one in past]
    rounds: list[list[Interaction]] = []
    for _ in range(2):
        taken, live = _take_round(live)
        rounds.append(taken)
    midnight = end.replace(hour=0, minute=0, second=0, microsecond=0)  # logs are cut by day, so nights are too
    first, second = midnight - timedelta(days=TRAFFIC_DAYS), midnight - timedelta(days=SECOND_NIGHT_DAYS)
    return Plan(
        history=[one for one in past if one.time < first],
        first_night=[one for one in past if first <= one.time < second],
        second_night=[one for one in past if one.time >= second],
        rounds=rounds,
        future=live,
    )


def _take_round(live: list[Interaction]) -> tuple[list[Interaction], list[Interaction]]:
    """The next ``ROUND`` interactions, ``ROUND_PER_USER`` of one user at most, and the rest; a user's order stays."""
    taken: list[Interaction] = []
    rest: list[Interaction] = []
    of_user: Counter[str] = Counter()
    for one in live:
        if len(taken) < ROUND and of_user[one.user] < ROUND_PER_USER:
            of_user[one.user] += 1
            taken.append(one)
        else:
            rest.append(one)
            of_user[one.user] = ROUND_PER_USER  # what comes later must not overtake what waits
    return taken, rest


def stamp(interactions: list[Interaction], since: datetime, until: datetime, seed: int) -> list[Interaction]:
    """The same interactions in the same order, at seeded random moments within ``since`` … ``until``."""
    span = (until - since) / timedelta(microseconds=1)
    draw = random.Random(f"stamp:{seed}")
    moments = sorted(since + timedelta(microseconds=int(draw.random() * span)) for _ in interactions)
    return [one._replace(time=moment) for one, moment in zip(interactions, moments, strict=True)]


def write_catalogue(landing: Path, films: list[Film]) -> None:
    """The site's films as JSON lines. One that nobody can watch any more must never be recommended."""
    rows: list[dict[str, object]] = [
        {
            "item_id": film.item_id, "title": film.title, "category": film.category, "text": film.text,
            "price": None, "available": film.title != "unkonwn",
        }
        for film in films
    ]  # fmt: skip
    _place(landing / "catalog" / "films.jsonl", _json_lines(rows))


def write_history(landing: Path, history: list[Interaction]) -> None:
    """The years before the logs were kept: one CSV export, with some rows twice and some broken."""
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
    """Days of traffic: an access log and an API file a day, with what a site's logs hold besides."""
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


@dataclass(frozen=True)
class Actions:
    """What users did with their lists: real interactions with a film they were shown, others, made-up clicks."""

    taken: list[Interaction]
    elsewhere: list[Interaction]
    simulated: list[Interaction]


def act(
    future: list[Interaction], lists: dict[str, list[Shown]], since: datetime, until: datetime, visits: float = 0.5
) -> Actions:
    """Let users act after ``since``, when all lists stood, and before ``until``.

    A real future interaction with a film of the user's list is taken from the list. Besides, a share ``visits`` of the
    users looks at the list and clicks at a rank with probability 0.12 / log2(rank + 1), whatever stands there. Such
    clicks are enough to drive the loop, but they say nothing of taste, and all of them are films that the champion
    chose: no quality may be claimed from them.
    """
    stamped = stamp(future, since, until, seed=3)
    places = {(user, place.film) for user, places in lists.items() for place in places}
    taken = [one for one in stamped if (one.user, one.film) in places]
    elsewhere = [one for one in stamped if (one.user, one.film) not in places]
    real = {(one.user, one.film) for one in future}
    draw = random.Random("clicks")
    clicks = []
    for user in sorted(lists):
        looks = draw.random() < visits
        for place in sorted(lists[user]):
            clicked = draw.random() < 0.12 / math.log2(place.rank + 1)
            if looks and clicked and (user, place.film) not in real:
                clicks.append(Interaction(user, place.film, 0, since))
    return Actions(taken, elsewhere, stamp(clicks, since, until, seed=4))


def write_actions(landing: Path, actions: Actions, films: list[Film], name: str) -> None:
    """Actions on lists as API lines (5 stars a purchase, else a click); what else happened as ordinary live traffic."""
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
    """Film pages by signed-in members, their searches, assets, and pages that are not there."""
    lines = []
    for one in interactions:
        if one.event_type != "view":
            continue
        member = int(one.user[1:])
        address = f"198.51.{member % 256}.{1 + member // 256}"
        agent = BROWSERS[member % len(BROWSERS)]
        slug = re.sub(r"[^a-z0-9]+", "-", titles[one.film].lower()).strip("-")
        if draw.random() < 0.1:
            asked = quote_plus(titles[one.film].split()[0])
            lines.append(_request(address, one.user, one.time, f"/search?q={asked}", 200, agent))
        lines.append(_request(address, one.user, one.time, f"/film/{one.film}-{slug}", 200, agent))
        for asset in draw.sample(ASSETS, k=draw.randrange(3)):
            lines.append(_request(address, one.user, one.time, asset, 304, agent))
        if draw.random() < 0.02:
            lines.append(_request(address, one.user, one.time, "/film/99999-gone", 404, agent))
    return lines


def _crawlers(day: datetime, films: list[Film], draw: random.Random) -> list[str]:
    """Search engines read a few film pages each day, and say who they are."""
    lines = []
    for agent in CRAWLERS:
        for film in draw.sample(films, k=8):
            lines.append(_request("192.0.2.77", "-", day, f"/film/{film.item_id}", 200, agent))
    return lines


def _regular_visitor(day: datetime, films: list[Film]) -> list[str]:
    """A price watcher that calls itself a browser and comes every ten seconds."""
    return [
        _request("203.0.113.5", "-", day + timedelta(seconds=10 * n), f"/film/{film.item_id}", 200, BROWSERS[0])
        for n, film in enumerate(films[:180])
    ]


def _request(address: str, user: str, time: datetime, target: str, status: int, agent: str) -> str:
    size = 200 + len(target) * 37
    return f'{address} - {user} [{time:%d/%b/%Y:%H:%M:%S +0000}] "GET {target} HTTP/1.1" {status} {size} "-" "{agent}"'


def _broken_lines(day: datetime) -> list[str]:
    """One of each kind of line that an API sends on a bad day."""
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
    """Write under a name that ingest leaves alone, then rename: a file is taken as it stands."""
    file.parent.mkdir(parents=True, exist_ok=True)
    hidden = file.with_name("." + file.name)
    hidden.write_bytes(data)
    os.replace(hidden, file)
