"""Read one batch and reach a verdict on each of its lines; the result is rows to write and counts.

Nothing here writes: the rows are returned as DataFrames, and the job commits them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from headwater import schemas
from headwater.config import Ingest
from headwater.errors import HeadwaterError, RefusedFiles
from headwater.frames import MAX_COLLECTED_ROWS, cached, collected, frame_of
from headwater.ingest import bots, duplicates, files, judging, kafka, reading
from headwater.ingest.batch import Batch
from headwater.ingest.lines import origin
from headwater.ingest.reading import Reader

MAX_COLLECTED_BYTES = 32 * 2**20
"""A batch whose lines have more bytes than this in total stays on the executors, however few lines it has."""

LINE_KEY = ("source_file", "position")
"""Columns that name a line of a batch."""
VERDICT_COLUMNS = (*LINE_KEY, "event_id", "user_id", "item_id", "event_type", "event_time", "agent")
"""Columns that decide the verdict on a line that could be an event."""

NOT_QUARANTINED = ("event", "duplicate")
"""Verdicts on lines that do not go to `quarantine`."""


@dataclass(frozen=True)
class Judged:
    """The result for one batch. ``verdicts``: the lines that could be events, each with a ``verdict``."""

    verdicts: DataFrame
    catalogue: DataFrame
    quarantine: DataFrame
    counts: dict[str, int]
    reasons: dict[str, int]
    damaged: list[str]

    @property
    def events(self) -> DataFrame:
        return self.verdicts.where(F.col("verdict") == "event")

    @property
    def has_rejects(self) -> bool:
        return self.counts["rows_quarantined"] + self.counts["rows_catalog_quarantined"] > 0


@dataclass(frozen=True)
class Tally:
    """Counts for lines of one kind. ``ready``: aggregates of the lines without a reason, None if there are none; ``reasons``: lines
    per reason; ``passed``: ignored events, or valid catalogue rows; ``repeated``: headers beyond a file's first."""

    ready: Row | None
    reasons: Counter[str]
    passed: int
    repeated: int

    @property
    def fits_driver(self) -> bool:
        """Whether the driver may hold the ready lines."""
        return (
            self.ready is not None
            and self.ready["rows"] <= MAX_COLLECTED_ROWS
            and self.ready["bytes"] <= MAX_COLLECTED_BYTES
        )


NO_LINES = Tally(None, Counter(), passed=0, repeated=0)


@contextmanager
def judge(reader: Reader, batch: Batch, stored: DataFrame) -> Iterator[Judged]:
    """A batch, read and judged against the ``stored`` events; cached frames are freed at the end. A damaged file is read up to
    the damage.

    Raises RefusedFiles if files do not fit their sources or cannot be read at present, BrokerError if messages cannot be read to
    their end.
    """
    damaged = reading.damaged(batch.files)
    with ExitStack() as stack:
        try:
            with kafka.explain_read_errors(reader.config.ingest.sources):
                judged = _judge(reader, batch, stored, damaged, stack)
        except Exception as error:
            if not _is_read_failure(error):
                raise
            stack.close()
            # Spark does not say which file failed, so each is tried separately
            undecodable = reading.undecodable(reader.spark, batch.files) - damaged
            if not undecodable:
                raise
            judged = _judge(reader, batch, stored, damaged | undecodable, stack)
        yield judged


def event_rows(new: DataFrame, taken_at: datetime) -> DataFrame:
    """Rows of ``events``, one file per day; adaptive execution has several tasks write a large day."""
    dated = new.withColumns(
        {"ingested_at": F.lit(taken_at), "event_date": F.to_date("event_time"), "source_file": origin()}
    )
    # Spark drops the hint without adaptive execution, and with it the repartition below the hint
    return dated.select(schemas.columns("events")).repartition("event_date").hint("rebalance", "event_date")


def _judge(reader: Reader, batch: Batch, stored: DataFrame, damaged: set[str], stack: ExitStack) -> Judged:
    spark, ingest = reader.spark, reader.config.ingest
    groups, spoiled = reading.group(spark, batch.files, damaged)
    lines = reader.events(groups, judging.limits(ingest, batch.taken_at))
    lines = cached(frame_of(spark, [], reading.EVENT_DDL) if lines is None else lines, stack)
    listed = reader.catalogue(groups)
    catalogue = frame_of(spark, [], reading.CATALOGUE_DDL) if listed is None else cached(listed, stack)
    catalogue_tally = NO_LINES if listed is None else _tally(_without_event(catalogue))
    _need_ids(catalogue, catalogue_tally.reasons, groups)
    event_tally = _tally(lines, agents=ingest.bot_agents)
    ready = lines.where(F.col("reason").isNull() & ~F.col("ignored"))
    if event_tally.fits_driver:
        verdicts = collected(_with_verdict(collected(ready)[0], ingest, event_tally, stored))[0]
        verdict_counts = Counter[str](dict(verdicts.groupBy("verdict").count().collect()))
    else:
        # whole lines are never shuffled: they learn from a few columns which of them are not events
        judged = _with_verdict(ready.select(*VERDICT_COLUMNS), ingest, event_tally, stored).where("verdict <> 'event'")
        not_events = cached(judged.select(*LINE_KEY, "verdict"), stack)
        verdict_counts = Counter[str](dict(not_events.groupBy("verdict").count().collect()))
        verdict_counts["event"] = (
            0 if event_tally.ready is None else event_tally.ready["rows"]
        ) - verdict_counts.total()
        verdicts = ready.join(not_events, on=[*LINE_KEY], how="left").fillna("event", "verdict")

    refused = verdicts.where(~F.col("verdict").isin(*NOT_QUARANTINED)).withColumn("reason", F.col("verdict"))
    rejects = [refused, *_rejects(lines, event_tally), *_rejects(catalogue, catalogue_tally)]
    quarantine = reduce(DataFrame.unionByName, [reading.quarantined(frame, batch.taken_at) for frame in rejects])
    broken = [file for file in batch.files if file.path in damaged | spoiled]
    if broken:
        broken_rows = [(f.path, _damage(f), files.source_name(f.source), f.path, batch.taken_at) for f in broken]
        quarantine = quarantine.unionByName(frame_of(spark, broken_rows, schemas.ddl("quarantine")))

    broken_catalogues = sum(file.source.format == "catalog" for file in broken)
    broken_events = Counter(_damage(file) for file in broken if file.source.format != "catalog")
    reasons = event_tally.reasons + Counter(
        {name: n for name, n in verdict_counts.items() if name not in NOT_QUARANTINED}
    )
    reasons += Counter(repeated_header=event_tally.repeated) + broken_events
    line_counts = {
        "rows_events": verdict_counts["event"],
        "rows_quarantined": reasons.total(),
        "rows_duplicate": verdict_counts["duplicate"],
        "rows_ignored": event_tally.passed,
    }
    counts = {
        "rows_in": sum(line_counts.values()),
        **line_counts,
        "rows_catalog": catalogue_tally.passed,
        "rows_catalog_quarantined": catalogue_tally.reasons.total() + catalogue_tally.repeated + broken_catalogues,
    }
    sound = catalogue.where(F.col("reason").isNull())
    return Judged(verdicts, sound, quarantine, counts, dict(reasons), [file.path for file in broken])


def _damage(file: files.LandingFile) -> str:
    return "unreadable_gzip" if file.path.endswith(".gz") else "unreadable_file"


def _rejects(lines: DataFrame, tally: Tally) -> list[DataFrame]:
    """The lines of one kind that have a reason, including headers beyond a file's first."""
    bad = lines.where("reason IS NOT NULL AND reason <> 'header'")
    return [bad, reading.surplus_headers(lines)] if tally.repeated else [bad]


def _tally(lines: DataFrame, agents: bool = False) -> Tally:
    """``agents``: whether to collect the agents of the ready lines."""
    ready = F.col("reason").isNull() & ~F.col("ignored")
    rows = lines.groupBy("reason", "ignored").agg(
        F.count("*").alias("rows"),
        F.sum(F.length("raw")).alias("bytes"),
        F.max("id_given").alias("given"),
        F.collect_set(F.when(ready, F.to_date("event_time"))).alias("days"),
        F.collect_set(F.when(ready & agents, F.col("agent"))).alias("agents"),
        F.size(F.collect_set(F.when(F.col("reason") == "header", F.col("source_file")))).alias("headed"),
    )
    facts, reasons, passed, repeated = None, Counter[str](), 0, 0
    for row in rows.collect():
        if row["reason"] == "header":
            repeated += row["rows"] - row["headed"]
        elif row["reason"] is not None:
            reasons[row["reason"]] += row["rows"]
        elif row["ignored"]:
            passed += row["rows"]
        else:
            facts = row
    return Tally(facts, reasons, passed, repeated)


def _without_event(catalogue: DataFrame) -> DataFrame:
    """Catalogue rows with the event columns that ``_tally`` needs."""
    nothing = F.lit(None).cast("timestamp")
    return catalogue.withColumns(
        {"agent": F.lit(None).cast("string"), "ignored": F.lit(True), "id_given": F.lit(False), "event_time": nothing}
    )


def _need_ids(catalogue: DataFrame, reasons: Counter[str], groups: list[reading.Group]) -> None:
    """Raises RefusedFiles for catalogues of JSON lines in which no row has an id."""
    if not reasons["missing_item_id"]:
        return
    json_catalogues = [
        file.path for g in groups if g.source.format == "catalog" and not g.layout.columns for file in g.files
    ]
    named = F.count(F.when(F.col("reason").isNull(), True))
    rows = catalogue.where(F.col("source_file").isin(json_catalogues)).groupBy("source_file").agg(named.alias("named"))
    if without_ids := sorted(row["source_file"] for row in rows.where("named = 0").collect()):
        line = "catalogue {} has no row with an item_id; it cannot be ingested without item ids"
        raise RefusedFiles({path: HeadwaterError(line.format(path)) for path in without_ids})


def _with_verdict(ready: DataFrame, ingest: Ingest, tally: Tally, stored: DataFrame) -> DataFrame:
    """Adds ``verdict``: ``event``, ``duplicate``, or a reason for quarantine (a bot, or the id of another event)."""
    facts = tally.ready
    if facts is None:
        return ready.withColumn("verdict", F.lit("event"))
    crawlers = [(agent, "bot_agent") for agent in bots.crawlers(facts["agents"])]
    crawler_agents = frame_of(ready.sparkSession, crawlers, "agent string, bot_agent string")
    marked = ready.join(F.broadcast(crawler_agents), on="agent", how="left")
    crawler_lines = marked.where(F.col("bot_agent").isNotNull()).withColumn("verdict", F.col("bot_agent"))
    people = duplicates.with_copy(marked.where(F.col("bot_agent").isNull()))
    first = people.where(F.col("copy") == 1)
    bot_users = bots.behaviour(first, ingest.bot_events_per_minute, ingest.bot_regular_events)
    stored = _with_same_ids(stored, facts, ingest.same_id_days)
    people = duplicates.with_stored(people, stored, tally.fits_driver).join(bot_users, on="user_id", how="left")
    is_bot = F.col("event_type").isin(*bots.BROWSING) & F.col("bot_reason").isNotNull()
    verdict = (
        F.when(F.col("another"), "id_of_another_event")
        .when(F.col("copy") > 1, "duplicate")
        .when(is_bot, F.col("bot_reason"))
        .when(F.col("stored"), "duplicate")
        .otherwise("event")
    )
    judged = people.withColumn("verdict", verdict)
    return judged.select(*ready.columns, "verdict").unionByName(crawler_lines.select(*ready.columns, "verdict"))


def _with_same_ids(stored: DataFrame, facts: Row, same_id_days: int | None) -> DataFrame:
    """The stored events that may have an id of the batch's. An id computed from the content includes the time, so only the days of
    the batch can hold it."""
    if not facts["given"]:
        return stored.where(F.col("event_date").isin(facts["days"]))
    if same_id_days is None or not facts["days"]:
        return stored
    apart = timedelta(days=same_id_days)
    return stored.where(F.col("event_date").between(min(facts["days"]) - apart, max(facts["days"]) + apart))


def _is_read_failure(error: Exception) -> bool:
    failed = any(name in str(error) for name in ("FAILED_READ_FILE", "PATH_NOT_FOUND"))
    return failed and not isinstance(error, HeadwaterError)
