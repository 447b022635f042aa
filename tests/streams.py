"""What tests of the warm stream share: its messages, its process, and the tables that two streams are compared by."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import shop
from sites import JOB_TIMEOUT_SECONDS, ROOT, Site

EVENTS = ("event_id", "user_id", "item_id", "event_type", "event_time")
SEQUENCES = ("user_id", "item_idx", "event_type", "event_time", "seen_items")
TOPN = ("user_id", "rank", "item_id", "score", "reason")
SECTIONS = ("user_id", "section", "rank", "item_id", "heading", "reason")


def topic_of(kafka, name: str, **more) -> dict:
    """A topic of a running broker as a source of ``ingest.sources``."""
    return {"format": "kafka", "brokers": kafka.address, "topic": name, **more}


def clicks(user: str, count: int, first: int = 0) -> list[str]:
    """A user's clicks on twenty of the goods, about a minute apart."""
    at = shop.START + timedelta(days=16)
    moments = [at + timedelta(minutes=n, seconds=n * 7 % 13) for n in range(first, first + count)]
    return [shop.api_line(user, f"i{n % 20}", "click", moment) for n, moment in enumerate(moments, first)]


def of_tables(site: Site, spark) -> dict[str, list[tuple]]:
    """Rows of a site's tables without what differs from run to run."""
    return {
        "events": site.rows(spark, "events", *EVENTS),
        "quarantine": site.rows(spark, "quarantine", "raw", "reason"),
        "items": site.rows(spark, "items", "item_id"),
        "sequences": site.rows(spark, "sequences", *SEQUENCES),
        # scores depend on the batch in their last digits
        "topn": [(*row[:3], round(row[3], 4), row[4]) for row in site.rows(spark, "topn", *TOPN)],
        "sections": site.rows(spark, "sections", *SECTIONS),
    }


@contextmanager
def streaming(site: Site, stderr: int | object = subprocess.PIPE) -> Iterator[subprocess.Popen]:
    """A stream without ``--once``, in a process group of its own, which is killed if the test fails."""
    command = [sys.executable, str(ROOT / "jobs/nearline.py"), "--config", str(site.config)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True, cwd=site.root
    )
    try:
        yield process
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


def closing_of(process: subprocess.Popen) -> dict:
    """The closing line of a stream that ended by itself and successfully."""
    out, err = process.communicate(timeout=JOB_TIMEOUT_SECONDS)
    assert process.returncode == 0, err[-2000:]
    return json.loads(out.strip().splitlines()[-1])
