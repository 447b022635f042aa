"""A site whose jobs run inside the test's own process and session: fast, for tests of the state that a job leaves."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from headwater.config import Config, load
from headwater.job import Job
from headwater.tables import Warehouse, readers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "jobs"))


WHEN = datetime(2026, 1, 1, 12, tzinfo=UTC)
"""Clicks are counted in minutes from here."""


class InProcessSite:
    """A landing folder, a warehouse and a config; ``call`` runs a job's body and returns its counts, or raises."""

    def __init__(self, spark, root: Path, settings: dict) -> None:
        self.landing, self.root = root / "landing", root / "warehouse"
        self.landing.mkdir(parents=True, exist_ok=True)
        paths = {"landing": str(self.landing), "warehouse": str(self.root)}
        file = root / "site.yaml"
        file.write_text(yaml.safe_dump({"paths": paths, "spark": {"spark.sql.shuffle.partitions": "2"}, **settings}))
        self.config: Config = load([file])
        self.tables = Warehouse(spark, str(self.root), 60, self.config.tables.deletion_vectors)

    def call(self, job: str, body: str, *args, **settings) -> dict:
        """Run function ``body`` of ``jobs/<job>.py``; ``settings`` replace whole sections of the config."""
        config = self.config.model_copy(update=settings)
        return getattr(importlib.import_module(job), body)(Job(job, config), *args)

    def click(self, name: str, *rows: tuple[str, str, int], dirt: tuple[str, ...] = ()) -> None:
        """Write a landing file with one click (user, item, minute) per line, followed by the invalid lines ``dirt``."""
        lines = [
            {
                "user_id": user,
                "item_id": item,
                "event_type": "click",
                "timestamp": str(WHEN + timedelta(minutes=minute)),
            }
            for user, item, minute in rows
        ]
        (self.landing / "api").mkdir(exist_ok=True)
        (self.landing / "api" / name).write_text("\n".join([*map(json.dumps, lines), *dirt]) + "\n")

    def vacuum(self, table: str) -> None:
        """Remove all files that the newest version does not need, including those of the change feed."""
        shutil.rmtree(self.root / table / "_change_data", ignore_errors=True)
        self.tables.optimize(table)
        self.tables.vacuum(table, 0)

    def clean_up_log(self, table: str) -> None:
        """Remove all entries of a table's log before the newest one, as Delta does with old entries."""
        readers.annotate(self.tables, table, {"job": "somebody else's"})  # the entry that stays has no rows
        logs = self.tables.spark._jvm.org.apache.spark.sql.delta.DeltaLog
        logs.forTable(self.tables.spark._jsparkSession, self.tables.path(table)).checkpoint()
        for entry in (self.root / table / "_delta_log").glob("*.json"):
            if int(entry.stem) < self.tables.version(table):
                entry.unlink()
        logs.clearCache()

    def rows(self, table: str, *columns: str) -> list[tuple]:
        frame = self.tables.read(table)
        return sorted((tuple(row) for row in frame.select(*(columns or frame.columns)).collect()), key=repr)
