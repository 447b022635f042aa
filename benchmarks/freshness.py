"""Seconds from an event's arrival to its user's new list, median and 95th percentile, through a real broker.

    python benchmarks/freshness.py

Creates a shop with a history and an untrained SASRec of d = 64 blended with transitions, starts `jobs/nearline.py` and a
Kafka broker, and sends events of random users at a steady rate. An event's latency ends when the first list of its user that
takes the event into account is committed to `topn`. Sizes: HEADWATER_BENCH_USERS, _ITEMS, _RATE (events a second),
_SECONDS. The events of the _WARM seconds before, in which the stream starts and the JVM compiles frequent code, are reported
separately. _MARKED=1 sets `tables.deletion_vectors`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import yaml
from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "demo")]

from broker import Broker  # noqa: E402
from score_job import register  # noqa: E402

from headwater.config import Config, load  # noqa: E402
from headwater.spark import session  # noqa: E402
from headwater.tables import Warehouse  # noqa: E402

USERS, ITEMS, RATE, SECONDS, WARM = (
    int(os.environ.get(f"HEADWATER_BENCH_{name}", default))
    for name, default in (
        ("USERS", "10000"), ("ITEMS", "10000"), ("RATE", "100"), ("SECONDS", "120"), ("WARM", "120")
    )
)  # fmt: skip
DELETION_VECTORS = os.environ.get("HEADWATER_BENCH_MARKED") == "1"
HISTORY = 10
TOPIC = "clicks"
TIMEOUT_SECONDS = 600


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        broker = Broker(root)
        broker.make(TOPIC)
        config = prepare(root, broker)
        stream = subprocess.Popen([sys.executable, str(ROOT / "jobs/nearline.py"), "--config", str(config)])
        try:
            wait_for_start_offsets(root / "warehouse")
            sent = send(broker)
            time.sleep(30)
        finally:
            stream.send_signal(signal.SIGTERM)
            stream.wait(TIMEOUT_SECONDS)
            broker.close()
        seconds_waited = latencies(session(Config(), "bench"), root / "warehouse", sent)
    print(f"{USERS} users, {ITEMS} items, {RATE} events/s, deletion vectors {'on' if DELETION_VECTORS else 'off'}")
    cold = RATE * WARM
    for name, some in (
        (f"the first {WARM} s", seconds_waited[:cold]),
        (f"the next {SECONDS} s", seconds_waited[cold:]),
    ):
        known = [seconds for seconds in some if seconds is not None]
        median, late = np.percentile(known, [50, 95]) if known else (np.nan, np.nan)
        print(f"{name}: median {median:.1f} s, p95 {late:.1f} s, maximum {max(known, default=np.nan):.1f} s, "
              f"{len(some) - len(known)} of {len(some)} events without a list")  # fmt: skip


def prepare(root: Path, broker: Broker) -> Path:
    """Create a shop with lists for all users; returns a config that also follows the topic, from its end."""
    rng = random.Random(1)
    (root / "landing").mkdir()
    goods = [f"i{k},Thing {k}" for k in range(ITEMS)]
    (root / "landing/goods.csv").write_text("\n".join(["item_id,title", *goods]) + "\n")
    start = datetime.now(UTC) - timedelta(days=20)
    with (root / "landing/history.json").open("w") as file:
        for user in range(USERS):
            for step in range(HISTORY):
                at = start + timedelta(hours=step * 40, seconds=rng.randrange(100_000))
                print(line(f"u{user}", f"i{rng.randrange(ITEMS)}", at), file=file)
    topic = {"format": "kafka", "brokers": broker.address, "topic": TOPIC, "starting": "latest"}
    files = [{"format": "json", "glob": "*.json"}, {"format": "catalog", "glob": "*.csv"}]
    paths = {"landing": str(root / "landing"), "warehouse": str(root / "warehouse")}
    settings = {"paths": paths, "tables": {"deletion_vectors": DELETION_VECTORS}}
    before, after = root / "before.yaml", root / "after.yaml"
    before.write_text(yaml.safe_dump({**settings, "ingest": {"sources": files}}))
    after.write_text(yaml.safe_dump({**settings, "ingest": {"sources": [*files, topic]}}))
    for job in ("ingest_events", "build_sequences", "score_topn"):
        if job == "score_topn":
            walks = np.random.default_rng(1).integers(1, ITEMS + 1, (USERS, HISTORY))
            register(load([before]), root / "model", walks, ITEMS, USERS, datetime.now(UTC))
        command = [sys.executable, str(ROOT / f"jobs/{job}.py"), "--config", str(before)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return after


def wait_for_start_offsets(warehouse: Path) -> None:
    """Wait until the stream has recorded its start offsets: the second commit with rows to `ingest_files`."""
    until = time.monotonic() + TIMEOUT_SECONDS
    while len(list((warehouse / "ingest_files/_delta_log").glob("*.json"))) < 3:
        assert time.monotonic() < until, "the stream recorded no start offsets in time"
        time.sleep(0.5)


def send(broker: Broker) -> list[tuple[str, float]]:
    """Send events at a steady rate; returns (user, epoch seconds) of each."""
    rng, sent, started = random.Random(2), [], time.time()
    for tick in range((WARM + SECONDS) * 10):
        time.sleep(max(0.0, started + tick / 10 - time.time()))
        lines = []
        for _ in range(RATE // 10):
            user, moment = f"u{rng.randrange(USERS)}", time.time()
            lines.append(line(user, f"i{rng.randrange(ITEMS)}", datetime.fromtimestamp(moment, UTC)))
            sent.append((user, moment))
        broker.send(TOPIC, lines, tick % 2)
    return sent


def latencies(spark: SparkSession, warehouse: Path, sent: list[tuple[str, float]]) -> list[float | None]:
    """Seconds from each event to the commit of the first list that takes it into account; None if no list does."""
    tables = Warehouse(spark, str(warehouse))
    commits = [c.at for c in tables.commits("topn") if c.operation == "MERGE" and c.note.get("mode") == "nearline"]
    rows = tables.read("topn_history").selectExpr(
        "user_id", "unix_micros(generated_at) / 1e6 AS made", "unix_micros(history_time) / 1e6 AS knows"
    )
    found = [tuple(row) for row in rows.distinct().collect()]
    made = sorted({one[1] for one in found})
    assert 0 < len(commits) < len(made), (len(made), len(commits))
    made = made[-len(commits) :]  # the earlier ones come from full runs
    published = dict(zip(made, sorted(commits), strict=True))
    lists: dict[str, list[tuple[float, float]]] = {}
    for user, at, knows in found:
        if at in published:
            lists.setdefault(user, []).append((published[at], knows))
    seconds_waited = []
    for user, moment in sent:
        ready = [at for at, knows in lists.get(user, []) if knows >= moment - 1e-5]
        seconds_waited.append(min(ready) - moment if ready else None)
    return seconds_waited


def line(user: str, item: str, at: datetime) -> str:
    return json.dumps({"user_id": user, "item_id": item, "event_type": "click", "timestamp": at.isoformat()})


if __name__ == "__main__":
    main()
