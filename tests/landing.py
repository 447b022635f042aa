"""A landing folder of four formats and a warehouse, for tests of ingest in one process; a fail-point raises in place of a kill."""

import bz2
import gzip
import json
from contextlib import contextmanager

import pytest

from headwater.config import Config
from headwater.ingest import verdicts
from headwater.job import Job
from headwater.nearline import events
from headwater.tables import Warehouse

AGENT = "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"
SOURCES = [
    {"format": "json", "glob": "api/*"},
    {"format": "csv", "glob": "pos/*", "fields": {"user_id": "who"}, "constants": {"event_type": "purchase"}},
    {"format": "combined_log", "glob": "web/*"},
    {"format": "catalog", "glob": "goods/*"},
]
RULES = [{"event_type": "view", "path": r"^/p/(?P<item_id>[^/?]+)"}]


class Killed(BaseException):
    """Stands for SIGKILL: a BaseException, so that no handler of ours catches it."""


class Shop:
    """A landing folder and a warehouse, used in the tests' Spark session."""

    def __init__(self, spark, root, **sections):
        self.spark, self.root = spark, root
        self.landing = root / "landing"
        self.landing.mkdir()
        self.sections = sections

    def put(self, path, *lines):
        file = self.landing / path
        file.parent.mkdir(exist_ok=True)
        data = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
        pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(file.suffix, bytes)
        file.write_bytes(pack(data))
        return file

    def job(self, landing=""):
        paths = {"landing": landing or str(self.landing), "warehouse": str(self.root / "warehouse")}
        ingest = {"sources": SOURCES, "url_rules": RULES, **self.sections.get("ingest", {})}
        job = Job("ingest_events", Config(**{"paths": paths, **self.sections, "ingest": ingest}))
        job.__dict__["spark"] = self.spark
        return job

    def ingest(self, kill_at="", landing="", meanwhile=None, locks=True):
        """Run the job. ``meanwhile``: functions to call at named instants; ``locks=False``: as on non-local storage."""
        job = self.job(landing)
        job.warehouse.is_local = locks
        happens = dict(meanwhile or {})

        def failpoint(name):
            if name == kill_at:
                raise Killed(name)
            happens.pop(name, lambda: None)()

        @contextmanager
        def judge(*batch):
            with verdicts.judge(*batch) as read:
                happens.pop("judged", lambda: None)()
                yield read

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(events, "failpoint", failpoint)
            patch.setattr(events, "judge", judge)
            return events.ingest(job)

    def rows(self, table, *columns):
        frame = Warehouse(self.spark, str(self.root / "warehouse")).read(table).select(*columns)
        return sorted((tuple(row) for row in frame.collect()), key=repr)

    def reasons(self):
        return [reason for (reason,) in self.rows("quarantine", "reason")]


def event(user, item, at=0, **more):
    moment = f"2024-05-01T10:{at // 60:02d}:{at % 60:02d}Z"
    return json.dumps({"user_id": user, "item_id": item, "event_type": "view", "timestamp": moment, **more})


def request(target, status=200, agent=AGENT, address="10.0.0.1"):
    return f'{address} - - [01/May/2024:10:05:03 +0000] "GET {target} HTTP/1.1" {status} 512 "-" "{agent}"'
