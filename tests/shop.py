"""A small synthetic shop: 60 users, 40 items, four kinds of files, and a pattern that a model can learn."""

from __future__ import annotations

import gzip
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
START = datetime.now(UTC).replace(microsecond=0) - timedelta(days=20)

CONFIG = {
    "ingest": {
        "sources": [
            {
                "format": "csv",
                "glob": "pos/*.csv",
                "constants": {"event_type": "purchase"},
                "fields": {"user_id": "customer", "item_id": "sku", "timestamp": "at", "value": "quantity"},
            },
            {"format": "json", "glob": "api/*.json"},
            {"format": "combined_log", "glob": "web/*.log.gz"},
            {"format": "catalog", "glob": "catalog/*.csv", "fields": {"item_id": "sku", "title": "name"}},
        ],
        "url_rules": [{"event_type": "view", "method": "GET", "path": r"^/p/(?P<item_id>[^/?]+)"}],
    },
    "sequence": {"max_length": 12},
    "model": {"dim": 16, "layers": 1, "heads": 1, "max_length": 10},
    "train": {"epochs": 2, "processes": 1},
    "topn": {"n": 5, "sections": [{"kind": "because", "n": 4}, {"kind": "category", "n": 4}]},
    "gate": {"bootstrap_samples": 200, "min_users": 5},
    "finetune": {"min_feedback": 5, "epochs": 1},
}


def steps(seed: int, users: range, start: datetime, count: int = 12) -> list[tuple[str, str, datetime]]:
    """(user, item, time): every user walks through the items in order, from a random start, with some noise."""
    rng = random.Random(seed)
    walked = []
    for user in users:
        place, moment = rng.randrange(40), start + timedelta(minutes=rng.randrange(600))
        for _ in range(count):
            place = (place + 1) % 40 if rng.random() < 0.9 else rng.randrange(40)
            moment += timedelta(hours=rng.randrange(1, 24), seconds=rng.randrange(60))
            walked.append((f"u{user}", f"i{place}", moment))
    return walked


def write_first_day(landing: Path) -> None:
    """Catalogue, a till's export, a web log, and API lines with one duplicate and two invalid lines."""
    for folder in ("pos", "api", "web", "catalog"):
        (landing / folder).mkdir(parents=True, exist_ok=True)
    goods = [f"i{k},Thing {k},kind {k % 4},{k + 0.5}" for k in range(40)]
    (landing / "catalog/goods.csv").write_text("\n".join(["sku,name,category,price", *goods]) + "\n")
    bought, clicked, viewed = (
        steps(1, range(0, 20), START),
        steps(2, range(20, 40), START),
        steps(3, range(40, 60), START),
    )
    till = [f"{user},{item},{at:%Y-%m-%d %H:%M:%S},2" for user, item, at in bought]
    (landing / "pos/day1.csv").write_text("\n".join(["customer,sku,at,quantity", *till]) + "\n")
    lines = [api_line(user, item, "click", at) for user, item, at in clicked]
    (landing / "api/day1.json").write_text("\n".join([*lines, lines[0], "{broken", '{"user_id": "u1"}']) + "\n")
    web = [
        f'10.0.0.{user[1:]} - {user} [{at:%d/%b/%Y:%H:%M:%S} +0000] "GET /p/{item} HTTP/1.1" 200 5 "-" "{AGENT}"'
        for user, item, at in viewed
    ]
    web.append(f'10.0.0.1 - - [{START:%d/%b/%Y:%H:%M:%S} +0000] "GET /style.css HTTP/1.1" 200 5 "-" "{AGENT}"')
    (landing / "web/day1.log.gz").write_bytes(gzip.compress("\n".join(web).encode()))


FIRST_DAY = {"rows_in": 724, "rows_events": 720, "rows_quarantined": 2, "rows_duplicate": 1, "rows_ignored": 1}


def write_second_day(landing: Path) -> set[str]:
    """Views by some known users and a new user, also of a new item; returns the users."""
    walked = [
        *steps(4, range(0, 6), START + timedelta(days=14), 2),
        ("new user", "new item", START + timedelta(days=15)),
        ("new user", "i3", START + timedelta(days=15, hours=1)),
    ]
    (landing / "api/day2.json").write_text("\n".join(api_line(u, i, "view", at) for u, i, at in walked) + "\n")
    return {user for user, _, _ in walked}


def api_line(user: str, item: str, kind: str, at: datetime) -> str:
    return json.dumps({"user_id": user, "item_id": item, "event_type": kind, "timestamp": at.isoformat()})
