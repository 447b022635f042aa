"""One batch of landing files: which files it has, and what reading and judging them gives.

Reads and judges; what is to be written comes back as DataFrames and counts, for the job to commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from headwater import schemas
from headwater.config import Config
from headwater.errors import HeadwaterError
from headwater.in_hand import FEW, constant, held
from headwater.ingest import access_log, bots, duplicates, files, judging, kafka, reading
from headwater.ingest.files import LandingFile
from headwater.ingest.lines import place

HELD_BYTES = 32 * 2**20
"""A batch whose lines are longer than this together stays on the executors, however few they are."""

POSITION = "position struct<block: bigint, line: bigint>"
EVENT_DDL = (
    f"source string, source_file string, {POSITION}, raw string, reason string, ignored boolean, agent string, "
    "user_id string, item_id string, event_type string, event_time timestamp, event_id string, id_given boolean, "
    "value double, query string, session_id string"
)
ROW_DDL = (
    f"source string, source_file string, {POSITION}, raw string, reason string, item_id string, title string, "
    "category string, text string, price double, available boolean"
)


@dataclass(frozen=True)
class Batch:
    """Files taken together at one moment. ``planned``: the ledger has them, an earlier run died in the middle."""

    number: int
    taken_at: datetime
    files: list[LandingFile]
    planned: bool = False


@dataclass
class Reading:
    """A judged batch; ``judged`` holds the lines that are possible events, with a ``verdict``."""

    judged: DataFrame
    catalogue: DataFrame
    quarantine: DataFrame
    counts: dict[str, int]
    reasons: dict[str, int]
    damaged: list[str]
    cached: list[DataFrame] = field(default_factory=list)

    @property
    def events(self) -> DataFrame:
        return self.judged.where(F.col("verdict") == "event")

    @property
    def has_rejects(self) -> bool:
        return self.counts["rows_quarantined"] + self.counts["rows_catalog_quarantined"] > 0

    def free(self) -> None:
        _free(self.cached)


def plan(
    found: list[LandingFile], ledger: Iterable[Any], done: int, now: datetime, warn: Callable[..., Any]
) -> list[Batch]:
    """The batches to take: the ledger's newest again if ``events`` ends before it (``done``), then what is new."""
    taken = {row["path"]: row for row in ledger}
    before = {path: (row["size_bytes"], aware(row["modified_at"])) for path, row in taken.items()}
    if edited := files.changed(found, before):
        warn("files changed after they were taken; they are not read again", files=edited[:5], count=len(edited))
    newest = max((row["batch"] for row in taken.values()), default=0)
    batches = []
    if newest > done:
        half = {path: row for path, row in taken.items() if row["batch"] == newest}
        again = [file for file in found if file.path in half]
        if gone := sorted(set(half) - {file.path for file in again}):
            warn("files of a half-taken batch have gone; their lines are lost", files=gone[:5], count=len(gone))
        if short := [file.path for file in again if file.size_bytes is None and file.uri != file.path]:
            warn("messages of a half-taken batch have aged out; they are lost", ranges=short[:5], count=len(short))
        batches.append(Batch(newest, aware(next(iter(half.values()))["taken_at"]), again, planned=True))
    if new := [file for file in found if file.path not in taken]:
        batches.append(Batch(newest + 1, now, new))
    return batches


def ledger_entries(batch: Batch) -> list[dict[str, Any]]:
    """What ``ingest_files`` says of a batch, a dict a file."""
    when = (batch.number, batch.taken_at)
    rows = [
        (file.path, files.source_name(file.source), file.source.format, file.size_bytes, file.modified_at, *when)
        for file in batch.files
    ]
    return [dict(zip(schemas.columns("ingest_files"), row, strict=True)) for row in rows]


def ledger_rows(spark: SparkSession, batch: Batch) -> DataFrame:
    """The rows of ``ingest_files`` for a batch."""
    rows = [tuple(entry.values()) for entry in ledger_entries(batch)]
    return constant(spark, rows, schemas.ddl("ingest_files"))


def event_rows(new: DataFrame, taken_at: datetime) -> DataFrame:
    """Rows for ``events``, one file a day."""
    dated = new.withColumns(
        {"ingested_at": F.lit(taken_at), "event_date": F.to_date("event_time"), "source_file": place()}
    )
    return dated.select(schemas.columns("events")).repartition("event_date")


def read(
    spark: SparkSession, root: str, batch: Batch, config: Config, rules: list[access_log.Rule], key: bytes | None,
    stored: DataFrame,
) -> Reading:  # fmt: skip
    """Read and judge a batch beside the ``stored`` events. A damaged file is read up to its damage.

    Raises UsageError or HeadwaterError when a file cannot be a file of its source, BrokerError when messages cannot be
    read to their end.
    """
    damaged = reading.damaged_gzip(batch.files)
    try:
        with kafka.reading(config.ingest.sources):
            return _judge(spark, root, batch, config, rules, key, stored, damaged)
    except Exception as error:
        if not _is_read_failure(error):
            raise
        # Spark says only that some file failed: try them one by one
        found = reading.unreadable(spark, batch.files) - damaged
        if not found:
            raise
    return _judge(spark, root, batch, config, rules, key, stored, damaged | found)


def aware(moment: datetime) -> datetime:
    """Spark gives rows' timestamps in the process's own zone, without saying so."""
    return moment.astimezone(UTC)


def _free(cached: list[DataFrame]) -> None:
    """Last made, first freed: Spark plans anew what still leans on a freed frame, which takes longer than the batch."""
    for frame in reversed(cached):
        frame.unpersist()


def _is_read_failure(error: Exception) -> bool:
    return not isinstance(error, HeadwaterError) and "FAILED_READ_FILE" in str(error)


def _judge(
    spark: SparkSession, root: str, batch: Batch, config: Config, rules: list[access_log.Rule], key: bytes | None,
    stored: DataFrame, damaged: set[str],
) -> Reading:  # fmt: skip
    cached: list[DataFrame] = []

    def keep(frame: DataFrame) -> DataFrame:
        cached.append(frame.persist())
        return frame

    try:
        groups, spoiled = reading.group(spark, batch.files, damaged)
        limit = judging.limits(config.ingest, batch.taken_at)
        lines = reading.events(spark, root, groups, config, rules, limit, key)
        lines = keep(constant(spark, [], EVENT_DDL) if lines is None else lines)
        goods = reading.catalogue_rows(spark, root, groups, config, key)
        facts, bad, repeated = _facts(lines)
        bad_goods, repeated_goods = Counter[str](), 0
        if goods is None:
            goods = constant(spark, [], ROW_DDL)
        else:
            _, bad_goods, repeated_goods = _facts(_without_event(keep(goods)))
            _need_ids(goods, bad_goods, groups)
        ready = lines.where(F.col("reason").isNull() & ~F.col("ignored"))
        few = facts is not None and facts["rows"] <= FEW and facts["bytes"] <= HELD_BYTES
        judged = _with_verdict(spark, held(ready)[0] if few else ready, config, facts, stored, few)
        judged = held(judged)[0] if few else keep(judged)
        verdicts: Counter[str] = Counter(dict(judged.groupBy("verdict").count().collect()))
    except BaseException:
        _free(cached)
        raise

    broken = [file for file in batch.files if file.path in damaged | spoiled]
    broken_goods = sum(file.source.format == "catalog" for file in broken)
    robots = judged.where(F.startswith("verdict", F.lit("bot_"))).withColumn("reason", F.col("verdict"))
    rejects = [robots, *(frame.where("reason IS NOT NULL AND reason <> 'header'") for frame in (lines, goods))]
    rejects += [reading.surplus_headers(f) for f, count in ((lines, repeated), (goods, repeated_goods)) if count]
    quarantine = reading.quarantined(rejects[0], batch.taken_at)
    for frame in rejects[1:]:
        quarantine = quarantine.unionByName(reading.quarantined(frame, batch.taken_at))
    if broken:
        lost = [(f.path, "unreadable_gzip", files.source_name(f.source), f.path, batch.taken_at) for f in broken]
        quarantine = quarantine.unionByName(constant(spark, lost, schemas.ddl("quarantine")))

    ignored, rows_catalog = bad.pop("", 0), bad_goods.pop("", 0)
    reasons = bad + Counter({name: n for name, n in verdicts.items() if name.startswith("bot_")})
    reasons += Counter(repeated_header=repeated, unreadable_gzip=len(broken) - broken_goods)
    counts = {
        "rows_events": verdicts["event"],
        "rows_quarantined": reasons.total(),
        "rows_duplicate": verdicts["duplicate"],
        "rows_ignored": ignored,
        "rows_catalog": rows_catalog,
        "rows_catalog_quarantined": bad_goods.total() + repeated_goods + broken_goods,
    }
    total = sum(counts[name] for name in ("rows_events", "rows_quarantined", "rows_duplicate", "rows_ignored"))
    counts = {"rows_in": total, **counts}
    rows = goods.where(F.col("reason").isNull())
    return Reading(judged, rows, quarantine, counts, dict(reasons), [file.path for file in broken], cached)


def _without_event(goods: DataFrame) -> DataFrame:
    """Catalogue rows as ``_facts`` counts them."""
    nothing = F.lit(None).cast("timestamp")
    return goods.withColumns(
        {"agent": F.lit(None).cast("string"), "ignored": F.lit(True), "id_given": F.lit(False), "event_time": nothing}
    )


def _facts(lines: DataFrame) -> tuple[Row | None, Counter[str], int]:
    """What the possible events hold, how many lines each reason has (``""`` for ignored ones), surplus headers."""
    rows = lines.groupBy("reason", "ignored").agg(
        F.count("*").alias("rows"),
        F.sum(F.length("raw")).alias("bytes"),
        F.max("id_given").alias("given"),
        F.min("event_time").alias("first"),
        F.max("event_time").alias("last"),
        F.collect_set("agent").alias("agents"),
        F.size(F.collect_set(F.when(F.col("reason") == "header", F.col("source_file")))).alias("headed"),
    )
    ready, reasons, repeated = None, Counter[str](), 0
    for row in rows.collect():
        if row["reason"] == "header":
            repeated += row["rows"] - row["headed"]
        elif row["reason"] is not None or row["ignored"]:
            reasons[row["reason"] or ""] += row["rows"]
        else:
            ready = row
    return ready, reasons, repeated


def _need_ids(goods: DataFrame, reasons: Counter[str], groups: list[reading.Group]) -> None:
    """Raises HeadwaterError for a catalogue of JSON lines in which not one row has an id."""
    if not reasons["missing_item_id"]:
        return
    headless = [file.path for g in groups if g.source.format == "catalog" and not g.columns for file in g.files]
    named = F.count(F.when(F.col("reason").isNull(), True))
    rows = goods.where(F.col("source_file").isin(headless)).groupBy("source_file").agg(named.alias("named"))
    if lacking := sorted(row["source_file"] for row in rows.where("named = 0").collect()):
        raise HeadwaterError(f"catalogue {lacking[0]} has no row with an item_id: without item ids it cannot be taken")


def _with_verdict(
    spark: SparkSession, ready: DataFrame, config: Config, facts: Row | None, stored: DataFrame, few: bool
) -> DataFrame:
    """Adds ``verdict``: ``event``, ``duplicate``, or the reason why the user is a bot."""
    ingest = config.ingest
    if facts is None:
        return ready.withColumn("verdict", F.lit("event"))
    crawling: list[tuple[str, str]] = []
    if ingest.bot_agents and any(source.format == "combined_log" for source in ingest.sources):
        crawling = [(agent, "bot_agent") for agent in bots.crawlers(facts["agents"])]
    named = constant(spark, crawling, "agent string, bot_agent string")
    marked = ready.join(F.broadcast(named), on="agent", how="left")
    crawled = marked.where(F.col("bot_agent").isNotNull()).withColumn("verdict", F.col("bot_agent"))
    people = duplicates.with_copy(marked.where(F.col("bot_agent").isNull()))
    first = people.where(F.col("copy") == 1)
    robots = bots.behaviour(first, ingest.bot_events_per_minute, ingest.bot_regular_events)
    if not facts["given"]:
        # an id made of content holds the time, so only the days of this batch can have it
        days = (aware(facts["first"]).date(), aware(facts["last"]).date())
        stored = stored.where(F.col("event_date").between(*days))
    people = duplicates.with_stored(people, stored, few).join(robots, on="user_id", how="left")
    is_robot = F.col("event_type").isin(*bots.BROWSING) & F.col("bot_reason").isNotNull()
    verdict = (
        F.when(F.col("copy") > 1, "duplicate")
        .when(is_robot, F.col("bot_reason"))
        .when(F.col("stored"), "duplicate")
        .otherwise("event")
    )
    judged = people.withColumn("verdict", verdict)
    return judged.select(*reading.EVENT, "verdict").unionByName(crawled.select(*reading.EVENT, "verdict"))
