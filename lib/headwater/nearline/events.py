"""Ingest landing files and topics into `events`, `quarantine` and `items`: the body of `ingest_events`.

The order of commits makes a kill at any instant harmless. The plan in `ingest_files` fixes a batch's files, message ranges and
time; the commit to `events` ends the batch; the next look first completes a batch that has only a plan. A batch's rows are
appended to a table once, by its number (``Warehouse.append``), also where no lock holds off another ingest; the merge into
`items` gives the same result when repeated.

A file that does not fit its source, or cannot be read at present, never enters a plan: the batch is judged before its plan is
committed, and judged again without the files that were refused. They are not in the ledger, so each is taken once it, or the
config, has been corrected.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from headwater import privacy
from headwater.errors import HeadwaterError, RefusedFiles, UnreadableFile
from headwater.ingest import access_log, batch, catalogue, files, kafka, reading
from headwater.ingest.files import LandingFile
from headwater.ingest.reading import Reader
from headwater.ingest.verdicts import event_rows, judge
from headwater.job import Job
from headwater.tables import failpoint

TABLES = ("events", "quarantine", "items", "ingest_files")
COUNTS = (
    "rows_in", "rows_events", "rows_quarantined", "rows_duplicate", "rows_ignored", "rows_catalog",
    "rows_catalog_quarantined", "files", "batches",
)  # fmt: skip


def ingest(j: Job) -> dict[str, int]:
    """Ingest everything available, look by look, until no topic holds more messages than one look takes.

    Raises the error of a file that was left alone after all others have been ingested.
    """
    intake, total, waiting = Intake(j), Counter(dict.fromkeys(COUNTS, 0)), 1
    while waiting:
        counts, waiting = intake.take_new(j)
        total.update(counts)
    intake.raise_refused()
    return {name: total[name] for name in COUNTS}


class Ledger:
    """The content of `ingest_files`, kept from one look to the next; read again if another process wrote to the table."""

    def __init__(self) -> None:
        self.version = -1
        self.rows: dict[str, Any] = {}

    def read(self, j: Job) -> Iterable[Any]:
        """Ingested files, and the newest range of each partition. Call it while holding the table's lock."""
        version = j.warehouse.version("ingest_files")
        if version != self.version:
            rows = kafka.latest_entries(j.warehouse.read("ingest_files", version)).collect()
            self.rows = {kafka.partition_or_file(row["path"]): row for row in rows}
            self.version = version
        return self.rows.values()

    def add(self, one: batch.Batch) -> None:
        """Add a batch whose commit directly follows the version read."""
        self.rows |= {kafka.partition_or_file(row["path"]): row for row in batch.ledger_entries(one)}
        self.version += 1


class Intake:
    """State shared by all looks. Raises UsageError at once for a setting that would make every look fail.

    ``read_by``: a checksum of the settings that decide what a line becomes; an unfinished batch must be repeated under the same.
    ``refused``: the new files that were left alone at the last look, each with its error. One that does not fit its source is not
    read again until it changes, one that cannot be read until it can be opened. ``warned``: the warnings given so far, so that a
    stream does not repeat them at every look.
    """

    def __init__(self, j: Job) -> None:
        sources = j.config.ingest.sources
        root = files.resolve(j.spark, j.config.paths.landing) if any(source.glob for source in sources) else ""
        key = privacy.load_key(j.config.privacy.key_file)
        reading.check(j.spark, j.config)
        read_by = [j.config.ingest.model_dump(mode="json", exclude_defaults=True), key is not None]
        self.read_by = zlib.crc32(json.dumps(read_by).encode())
        rules = access_log.compile_rules(j.spark, j.config.ingest.url_rules)
        self.reader = Reader(j.spark, root, j.config, rules, key)
        self.ledger = Ledger()
        self.refused: dict[LandingFile, HeadwaterError] = {}
        self.warned: set[tuple[LandingFile | str, str]] = set()

    def raise_refused(self) -> None:
        """Raises the error of the first refused file, if there is one; the line counts the others."""
        if self.refused:
            first, *others = self.refused.values()
            more = f", and {len(others)} more like it" if others else ""
            raise type(first)(f"{first} (left alone{more}; all other files were ingested)") from first

    def take_new(self, j: Job) -> tuple[Counter[str], int]:
        """Ingest the files and messages that one look finds; returns counts, and how many messages are left for the next look.

        New files that do not fit their sources or cannot be read are left alone; those of an unfinished batch raise RefusedFiles.
        """
        total, sources, tell = Counter[str](), j.config.ingest.sources, partial(self._tell, j)
        with j.warehouse.locked(*TABLES):
            for table in TABLES:
                j.warehouse.create(table)
            root = self.reader.root
            found, shared = files.find(j.spark, root, sources) if root else ([], [])
            if shared:
                tell("several sources match a file; the first one gets it", shared)
            ledger = self.ledger.read(j)
            messages, waiting = kafka.find(j.spark, sources, ledger, j.now, j.log.warning)
            ended, begun = (j.warehouse.last_note(table, j.name) or {} for table in ("events", "ingest_files"))
            so_far, last_begun = Counter(ended.get("so_far", {})), begun.get("batch", 0)
            batches = batch.plan([*found, *messages], ledger, ended.get("batch", 0), last_begun, j.now, tell)
            new = {file for one in batches if not one.planned for file in one.files}
            self.refused = {f: error for f, error in self.refused.items() if f in new and not _may_fit_now(f, error)}
            if any(one.planned for one in batches) and begun.get("read_by", self.read_by) != self.read_by:
                raise HeadwaterError(
                    f"batch {last_begun} of an earlier run is unfinished, and the section ingest or privacy.key_file has changed "
                    "since: run jobs/ingest_events.py once as they were, then change them"
                )
            for one in batches:
                take = self._take if one.planned else self._take_fitting
                counts = take(j, one, so_far)
                if counts is None:
                    j.log.warning("another ingest has begun a batch of this number; looking again", batch=one.number)
                    return total, max(waiting, 1)
                total.update(counts)
        return total, waiting

    def _take_fitting(self, j: Job, one: batch.Batch, so_far: Counter[str]) -> dict[str, int] | None:
        """Commit a new batch without the files that are refused, of which each is told once; no batch if no file is left."""
        while fitting := [file for file in one.files if file not in self.refused]:
            try:
                return self._take(j, replace(one, files=fitting), so_far)
            except RefusedFiles as refusal:
                refused = {file: refusal.errors[file.path] for file in fitting if file.path in refusal.errors}
                self.refused |= refused
                for file, error in refused.items():
                    if (file, str(error)) not in self.warned:
                        j.log.warning("a file is left alone", file=file.path, why=str(error))
                        self.warned.add((file, str(error)))
        return {}

    def _tell(self, j: Job, line: str, paths: list[str]) -> None:
        """Warns of the files of which no earlier look has warned in these words."""
        if new := [path for path in paths if (path, line) not in self.warned]:
            j.log.warning(line, files=new[:5], count=len(new))
            self.warned |= {(path, line) for path in new}

    def _take(self, j: Job, one: batch.Batch, so_far: Counter[str]) -> dict[str, int] | None:
        """Commit one batch and add its counts to those of all batches ``so_far``; errors in its files are raised before the
        first write. Returns None, and writes nothing, if another process has begun a batch of this number."""
        tables, note = j.warehouse, {"job": j.name, "batch": one.number}
        j.log.info("batch begins", batch=one.number, files=len(one.files), again=one.planned)
        with judge(self.reader, one, tables.read("events")) as read, ThreadPoolExecutor(max_workers=1) as beside:
            items = tables.read("items")
            listed = (
                None
                if read.counts["rows_catalog"]
                else beside.submit(catalogue.without_item_row(items, read.events).isEmpty)
            )
            if read.damaged:
                j.log.warning("files are damaged; the lines before the damage are ingested", files=read.damaged)
            if not one.planned:
                ours = {**note, "taken_at": one.taken_at.isoformat(), "read_by": self.read_by}
                tables.append(batch.ledger_rows(j.spark, one), "ingest_files", ours, one.number)
                if tables.last_note("ingest_files", j.name) != ours:
                    return None
                self.ledger.add(one)
            failpoint("ingest_events:after_plan")
            if read.has_rejects:
                tables.append(read.quarantine, "quarantine", note, one.number)
            failpoint("ingest_events:after_quarantine")
            if listed is None or not listed.result():
                listed_items = catalogue.latest(read.catalogue, one.files)
                rows = catalogue.changed_items(items, listed_items, read.events, one.taken_at).localCheckpoint()
                if rows.count():
                    tables.merge(rows, "items", note, update_when=catalogue.ITEM_CHANGED)
            failpoint("ingest_events:after_items")
            so_far.update(read.counts)
            note = {**note, **read.counts, "so_far": dict(so_far)}
            tables.append(event_rows(read.events, one.taken_at), "events", note, one.number)
            failpoint("ingest_events:after_events")
        j.log.info("batch done", batch=one.number, reasons=read.reasons, **read.counts)
        return {**read.counts, "files": len(one.files), "batches": 1}


def _may_fit_now(file: LandingFile, error: HeadwaterError) -> bool:
    return isinstance(error, UnreadableFile) and (not file.is_local or os.access(file.uri, os.R_OK))
