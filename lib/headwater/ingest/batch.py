"""Batches of landing files, each taken whole: planned, quarantined, its items numbered, its events committed.

The order of commits makes it safe to be killed at any instant. The plan (``ingest_files``) fixes which files a batch
has and when it was taken; the commit to ``events`` ends it. What lies between is either noted with the batch number
and not repeated (``quarantine``) or gives the same when repeated (``items``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from headwater import privacy, schemas
from headwater.errors import HeadwaterError
from headwater.ingest import access_log, bots, catalogue, duplicates, files, judging, reading
from headwater.ingest.files import LandingFile
from headwater.job import Job
from headwater.tables import failpoint

TABLES = ("events", "quarantine", "items", "ingest_files")
COUNTS = ("rows_in", "rows_events", "rows_quarantined", "rows_duplicate", "rows_ignored",
          "rows_catalog", "rows_catalog_quarantined", "files", "batches")  # fmt: skip


@dataclass(frozen=True)
class Batch:
    number: int
    taken_at: datetime
    files: list[LandingFile]
    planned: bool
    """Whether the ledger has it already: an earlier run died in the middle of it."""


def ingest(j: Job) -> dict[str, int]:
    """Take all files that are new, after any batch that an earlier run left half taken. Returns the counts."""
    root = files.resolve(j.config.paths.landing)
    key = privacy.load_key(j.config.privacy.key_file)
    judging.limits(j.config.ingest, j.now)
    reading.check(j.spark, j.config)
    rules = access_log.compile_rules(j.spark, j.config.ingest.url_rules)
    total: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    with j.warehouse.locked(*TABLES):
        for table in TABLES:
            j.warehouse.create(table)
        for batch in _batches(j, root):
            total.update(take(j, root, batch, rules, key))
    return {name: total[name] for name in COUNTS}


def take(j: Job, root: str, batch: Batch, rules: list[access_log.Rule], key: bytes | None) -> dict[str, int]:
    """Read, judge and commit one batch. Whatever its files get wrong is raised before the first write."""
    tables, note = j.warehouse, {"job": j.name, "batch": batch.number}
    j.log.info("batch begins", batch=batch.number, files=len(batch.files), again=batch.planned)
    read = _read(j, root, batch, rules, key)
    try:
        if not batch.planned:
            tables.append(_plan(j, batch), "ingest_files", note)
        failpoint("ingest_events:after_plan")
        done = tables.last_note("quarantine", j.name) if read.rejected else None
        if read.rejected and (done is None or done["batch"] < batch.number):
            tables.append(read.quarantine, "quarantine", note)
        failpoint("ingest_events:after_quarantine")
        new = read.judged.where(F.col("verdict") == "event")
        rows = catalogue.merged(tables.read("items"), catalogue.latest(read.catalogue), new, batch.taken_at)
        if read.counts["rows_events"] or read.counts["rows_catalog"]:
            tables.merge(rows, "items", note, update_when=catalogue.CHANGED)
        failpoint("ingest_events:after_items")
        dated = new.withColumns({"ingested_at": F.lit(batch.taken_at), "event_date": F.to_date("event_time")})
        dated = dated.select(schemas.columns("events")).repartition("event_date")
        tables.append(dated, "events", {**note, **read.counts})
        failpoint("ingest_events:after_events")
    finally:
        for frame in read.cached:
            frame.unpersist()
    j.log.info("batch done", batch=batch.number, reasons=read.reasons, **read.counts)
    return {**read.counts, "files": len(batch.files), "batches": 1}


@dataclass
class Read:
    """One batch, judged: ``judged`` has a ``verdict`` a line that parsed as an event."""

    judged: DataFrame
    catalogue: DataFrame
    quarantine: DataFrame
    rejected: bool
    counts: dict[str, int]
    reasons: dict[str, int]
    cached: list[DataFrame]


def _batches(j: Job, root: str) -> list[Batch]:
    found, shared = files.find(j.spark, root, j.config.ingest.sources)
    if shared:
        j.log.warning("more than one source asks for a file; the first gets it", files=shared[:5], count=len(shared))
    taken = {row["path"]: row for row in j.warehouse.read("ingest_files").collect()}
    ledger = {path: (row["size_bytes"], _aware(row["modified_at"])) for path, row in taken.items()}
    if edited := files.changed(found, ledger):
        j.log.warning("files changed after they were taken; they are not read again", files=edited[:5], count=len(edited))
    newest = max((row["batch"] for row in taken.values()), default=0)
    note = j.warehouse.last_note("events", j.name)
    batches = []
    if newest > (note["batch"] if note else 0):
        half = {path: row for path, row in taken.items() if row["batch"] == newest}
        again = [file for file in found if file.path in half]
        if gone := sorted(set(half) - {file.path for file in again}):
            j.log.warning("files of a half-taken batch have gone; their lines are lost", files=gone[:5], count=len(gone))
        moment = _aware(next(iter(half.values()))["taken_at"])
        batches.append(Batch(newest, moment, again, planned=True))
    if new := [file for file in found if file.path not in taken]:
        batches.append(Batch(newest + 1, j.now, new, planned=False))
    return batches


def _read(j: Job, root: str, batch: Batch, rules: list[access_log.Rule], key: bytes | None) -> Read:
    """Read with trust; if that fails, find the damaged files and read those up to their damage."""
    damaged: set[str] = set()
    for thorough in (False, True, None):
        try:
            return _judge(j, root, batch, rules, key, damaged)
        except HeadwaterError:
            raise
        except Exception:
            found = reading.unreadable(j.spark, batch.files, thorough) if thorough is not None else set()
            if thorough is None or (thorough and not found - damaged):
                raise
            damaged |= found
    raise AssertionError


def _judge(
    j: Job, root: str, batch: Batch, rules: list[access_log.Rule], key: bytes | None, damaged: set[str]
) -> Read:
    cached: list[DataFrame] = []
    try:
        return _judged(j, root, batch, rules, key, damaged, cached)
    except BaseException:
        for frame in cached:
            frame.unpersist()
        raise


def _judged(
    j: Job, root: str, batch: Batch, rules: list[access_log.Rule], key: bytes | None, damaged: set[str],
    cached: list[DataFrame],
) -> Read:  # fmt: skip
    ingest, spark = j.config.ingest, j.spark

    def keep(frame: DataFrame) -> DataFrame:
        cached.append(frame.persist())
        return frame

    groups = reading.group(spark, batch.files, damaged)
    limit = judging.limits(ingest, batch.taken_at)
    lines = reading.events(spark, root, groups, j.config, rules, limit, key)
    goods = reading.catalogue_rows(spark, root, groups, j.config, key)
    lines = keep(lines if lines is not None else spark.createDataFrame([], _EVENT_DDL))
    goods = keep(goods if goods is not None else spark.createDataFrame([], _ROW_DDL))

    facts = lines.groupBy("reason", "ignored").agg(
        F.count("*").alias("rows"),
        F.max(F.when(F.col("reason").isNull() & ~F.col("ignored"), F.col("id_given"))).alias("given"),
        F.min(F.when(F.col("reason").isNull() & ~F.col("ignored"), F.col("event_time"))).alias("first"),
        F.max(F.when(F.col("reason").isNull() & ~F.col("ignored"), F.col("event_time"))).alias("last"),
    ).collect()  # fmt: skip
    bad = Counter({row["reason"]: row["rows"] for row in facts if row["reason"] is not None})
    good = next((row for row in facts if row["reason"] is None and not row["ignored"]), None)
    catalog = Counter(dict(goods.groupBy("reason").count().collect()))
    _need_ids(goods, catalog)

    ready = lines.where(F.col("reason").isNull() & ~F.col("ignored"))
    judged = keep(_with_verdict(j, ready, good))
    verdicts = Counter(dict(judged.groupBy("verdict").count().collect()))

    broken = [file for file in batch.files if file.path in damaged]
    heads = {file.path for g in groups if g.header is not None for file in g.files}
    quarantine, repeated, repeated_rows = _headers(lines, goods, bad, catalog, batch.taken_at, heads)
    quarantine = quarantine.unionByName(
        reading.quarantined(
            judged.where(F.col("verdict").startswith("bot_")).withColumn("reason", F.col("verdict")), batch.taken_at
        )
    )
    if broken:
        j.log.warning("cannot be read to the end; its lines before the damage are taken", files=[f.path for f in broken])
        rows = [(f.path, "unreadable_gzip", files.source_name(f.source), f.path, batch.taken_at) for f in broken]
        quarantine = quarantine.unionByName(spark.createDataFrame(rows, schemas.ddl("quarantine")))
    broken_goods = sum(file.source.format == "catalog" for file in broken)
    broken_lines = len(broken) - broken_goods
    bad.pop("header", None)
    catalog.pop("header", None)
    bot_rows = Counter({name: n for name, n in verdicts.items() if name.startswith("bot_")})
    reasons = bad + bot_rows + Counter(repeated_header=repeated, unreadable_gzip=broken_lines)
    counts = {
        "rows_events": verdicts["event"],
        "rows_quarantined": reasons.total(),
        "rows_duplicate": verdicts["duplicate"],
        "rows_ignored": sum(row["rows"] for row in facts if row["reason"] is None and row["ignored"]),
        "rows_catalog": catalog[None],
        "rows_catalog_quarantined": catalog.total() - catalog[None] + repeated_rows + broken_goods,
    }
    counts["rows_in"] = sum(counts[n] for n in ("rows_events", "rows_quarantined", "rows_duplicate", "rows_ignored"))
    rejected = counts["rows_quarantined"] + counts["rows_catalog_quarantined"] > 0
    rows = goods.where(F.col("reason").isNull())
    return Read(judged, rows, quarantine, rejected, counts, dict(+reasons), cached)


def _headers(
    lines: DataFrame, goods: DataFrame, bad: Counter, catalog: Counter, moment: datetime, heads: set[str]
) -> tuple[DataFrame, int, int]:
    """Quarantine rows of lines and catalogue rows, and how many header lines stand where no header belongs."""
    rejected = F.col("reason").isNotNull() & (F.col("reason") != "header")
    parts, repeated = [], []
    for frame, count in ((lines, bad), (goods, catalog)):
        parts.append(reading.quarantined(frame.where(rejected), moment))
        extra = 0
        if count["header"] > 1:
            surplus = reading.surplus_headers(frame)
            if count["header"] > len(heads) or (extra := surplus.count()):
                extra = extra or surplus.count()
                parts.append(reading.quarantined(surplus, moment))
        repeated.append(extra)
    return parts[0].unionByName(parts[1]) if len(parts) == 2 else _union(parts), repeated[0], repeated[1]


def _union(parts: list[DataFrame]) -> DataFrame:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.unionByName(part)
    return whole


def _with_verdict(j: Job, ready: DataFrame, facts: Row | None) -> DataFrame:
    """Adds ``verdict``: ``event``, ``duplicate`` or a bot reason."""
    if facts is None:
        return ready.withColumn("verdict", F.lit("event"))
    ingest = j.config.ingest
    agent = F.lit(None).cast("string")
    if ingest.bot_agents and any(source.format == "combined_log" for source in ingest.sources):
        agents = [row["agent"] for row in ready.select("agent").where("agent IS NOT NULL").distinct().collect()]
        if crawling := bots.crawlers(agents):
            named = j.spark.createDataFrame([(name, "bot_agent") for name in crawling], "agent string, named string")
            ready = ready.join(F.broadcast(named), on="agent", how="left")
            agent = F.col("named")
    ready = ready.withColumn("bot_agent", agent)
    people = duplicates.with_copy(ready.where(F.col("bot_agent").isNull()))
    robots = bots.behaviour(
        people.where(F.col("copy") == 1), ingest.bot_events_per_minute, ingest.bot_regular_events
    ).collect()
    stored = j.warehouse.read("events").select("event_id", "event_date")
    if not facts["given"]:
        # an id made of content holds the time, so that only the days of this batch can have it
        days = F.col("event_date").between(facts["first"].date(), facts["last"].date())
        stored = stored.where(days)
    people = duplicates.with_stored(people, stored)
    users = j.spark.createDataFrame(robots, "user_id string, bot_reason string")
    people = people.join(F.broadcast(users), on="user_id", how="left")
    browsing = F.col("event_type").isin(*bots.BROWSING)
    verdict = (
        F.when(F.col("copy") > 1, "duplicate")
        .when(browsing & F.col("bot_reason").isNotNull(), F.col("bot_reason"))
        .when(F.col("stored"), "duplicate")
        .otherwise("event")
    )
    judged = people.withColumn("verdict", verdict).select(*reading.EVENT, "verdict")
    named = ready.where(F.col("bot_agent").isNotNull()).withColumn("verdict", F.col("bot_agent"))
    return judged.unionByName(named.select(*reading.EVENT, "verdict"))
