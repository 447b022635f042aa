"""Take the new landing files into `events`, `quarantine` and `items`.

    python jobs/ingest_events.py --config conf/site.yaml

A file is taken once, ever. Every line ends in `events`, in `quarantine` with a reason, as a duplicate, or as a
request that no rule calls an action, and the closing line adds up.

The order of commits makes it safe to be killed at any instant. The plan in `ingest_files` fixes which files a batch
has and when it was taken; the commit to `events` ends it; the next run first ends a batch that has a plan only. What
lies between is noted with the batch number and not repeated (`quarantine`), or the same when repeated (`items`).
"""

from __future__ import annotations

from collections import Counter

import typer

from headwater import job, privacy
from headwater.ingest import access_log, batch, catalogue, files, judging, reading
from headwater.job import Job
from headwater.tables import failpoint

app = typer.Typer(add_completion=False)
TABLES = ("events", "quarantine", "items", "ingest_files")
COUNTS = (
    "rows_in", "rows_events", "rows_quarantined", "rows_duplicate", "rows_ignored", "rows_catalog",
    "rows_catalog_quarantined", "files", "batches",
)  # fmt: skip


@app.command(help=__doc__)
def main(config: job.ConfigFiles = None, set_: job.Overrides = None) -> None:
    job.run("ingest_events", ingest, config, set_)


def ingest(j: Job) -> dict[str, int]:
    root = files.resolve(j.config.paths.landing)
    key = privacy.load_key(j.config.privacy.key_file)
    judging.limits(j.config.ingest, j.now)
    reading.check(j.spark, j.config)
    rules = access_log.compile_rules(j.spark, j.config.ingest.url_rules)
    total = Counter(dict.fromkeys(COUNTS, 0))
    with j.warehouse.locked(*TABLES):
        for table in TABLES:
            j.warehouse.create(table)
        found, shared = files.find(j.spark, root, j.config.ingest.sources)
        if shared:
            j.log.warning("several sources ask for a file; the first gets it", files=shared[:5], count=len(shared))
        note = j.warehouse.last_note("events", j.name)
        ledger = j.warehouse.read("ingest_files").collect()
        for one in batch.plan(found, ledger, note["batch"] if note else 0, j.now, j.log.warning):
            total.update(take(j, root, one, rules, key))
    return {name: total[name] for name in COUNTS}


def take(j: Job, root: str, one: batch.Batch, rules: list[access_log.Rule], key: bytes | None) -> dict[str, int]:
    """Commit one batch; whatever its files get wrong is raised before the first write."""
    tables, note = j.warehouse, {"job": j.name, "batch": one.number}
    j.log.info("batch begins", batch=one.number, files=len(one.files), again=one.planned)
    read = batch.read(j.spark, root, one, j.config, rules, key, tables.read("events"))
    try:
        if read.damaged:
            j.log.warning("files cannot be read to their end; the lines before it are taken", files=read.damaged)
        if not one.planned:
            tables.append(batch.ledger_rows(j.spark, one), "ingest_files", note)
        failpoint("ingest_events:after_plan")
        if read.has_rejects:
            done = tables.last_note("quarantine", j.name) if one.planned else None
            if done is None or done["batch"] < one.number:
                tables.append(read.quarantine, "quarantine", note)
        failpoint("ingest_events:after_quarantine")
        if read.counts["rows_events"] or read.counts["rows_catalog"]:
            goods = catalogue.latest(read.catalogue)
            rows = catalogue.merged(tables.read("items"), goods, read.events, one.taken_at).localCheckpoint()
            if rows.count():
                tables.merge(rows, "items", note, update_when=catalogue.CHANGED)
        failpoint("ingest_events:after_items")
        tables.append(batch.event_rows(read.events, one.taken_at), "events", {**note, **read.counts})
        failpoint("ingest_events:after_events")
    finally:
        read.free()
    j.log.info("batch done", batch=one.number, reasons=read.reasons, **read.counts)
    return {**read.counts, "files": len(one.files), "batches": 1}


if __name__ == "__main__":
    job.start(app)
