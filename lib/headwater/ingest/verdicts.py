"""Read one batch and reach a verdict on each of its lines; the result is rows to write and counts.

Nothing here writes: the rows are returned as DataFrames, and the job commits them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import reduce

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from headwater import schemas
from headwater.config import Ingest
from headwater.errors import HeadwaterError, RefusedFiles
from headwater.frames import MAX_COLLECTED_ROWS, cached, collected, frame_of
from headwater.ingest import bots, duplicates, files, judging, kafka, reading
from headwater.ingest.batch import Batch, aware
from headwater.ingest.lines import place
from headwater.ingest.reading import Reader

HELD_BYTES = 32 * 2**20
"""A batch whose lines have more bytes than this in total stays on the executors, however few lines it has."""

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

PLACE = ("source_file", "position")
"""Columns that name a line of a batch."""
DECISIVE = (*PLACE, "event_id", "user_id", "item_id", "event_type", "event_time", "agent")
"""Columns that decide the verdict on a line that could be an event."""

TAKEN = ("event", "duplicate")
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
    def few(self) -> bool:
        """Whether the driver may hold the ready lines."""
        return self.ready is not None and self.ready["rows"] <= MAX_COLLECTED_ROWS and self.ready["bytes"] <= HELD_BYTES


NOTHING = Tally(None, Counter(), passed=0, repeated=0)


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
            with kafka.reading(reader.config.ingest.sources):
                found = _judge(reader, batch, stored, damaged, stack)
        except Exception as error:
            if not _is_read_failure(error):
                raise
            stack.close()
            # Spark does not say which file failed, so each is tried separately
            more = reading.undecodable(reader.spark, batch.files) - damaged
            if not more:
                raise
            found = _judge(reader, batch, stored, damaged | more, stack)
        yield found


def event_rows(new: DataFrame, taken_at: datetime) -> DataFrame:
    """Rows of ``events``, one file per day; adaptive execution has several tasks write a large day."""
    dated = new.withColumns(
        {"ingested_at": F.lit(taken_at), "event_date": F.to_date("event_time"), "source_file": place()}
    )
    # Spark drops the hint without adaptive execution, and with it the repartition below the hint
    return dated.select(schemas.columns("events")).repartition("event_date").hint("rebalance", "event_date")


def _judge(reader: Reader, batch: Batch, stored: DataFrame, damaged: set[str], stack: ExitStack) -> Judged:
    spark, ingest = reader.spark, reader.config.ingest
    groups, spoiled = reading.group(spark, batch.files, damaged)
    lines = reader.events(groups, judging.limits(ingest, batch.taken_at))
    lines = cached(frame_of(spark, [], EVENT_DDL) if lines is None else lines, stack)
    listed = reader.catalogue(groups)
    goods = frame_of(spark, [], ROW_DDL) if listed is None else cached(listed, stack)
    of_goods = NOTHING if listed is None else _tally(_without_event(goods))
    _need_ids(goods, of_goods.reasons, groups)
    of_events = _tally(lines, agents=ingest.bot_agents)
    ready = lines.where(F.col("reason").isNull() & ~F.col("ignored"))
    if of_events.few:
        verdicts = collected(_with_verdict(collected(ready)[0], ingest, of_events, stored))[0]
        number = Counter[str](dict(verdicts.groupBy("verdict").count().collect()))
    else:
        # whole lines are never shuffled: they learn from a few columns which of them are not events
        judged = _with_verdict(ready.select(*DECISIVE), ingest, of_events, stored).where("verdict <> 'event'")
        others = cached(judged.select(*PLACE, "verdict"), stack)
        number = Counter[str](dict(others.groupBy("verdict").count().collect()))
        number["event"] = (0 if of_events.ready is None else of_events.ready["rows"]) - number.total()
        verdicts = ready.join(others, on=[*PLACE], how="left").fillna("event", "verdict")

    refused = verdicts.where(~F.col("verdict").isin(*TAKEN)).withColumn("reason", F.col("verdict"))
    rejects = [refused, *_rejects(lines, of_events), *_rejects(goods, of_goods)]
    quarantine = reduce(DataFrame.unionByName, [reading.quarantined(frame, batch.taken_at) for frame in rejects])
    broken = [file for file in batch.files if file.path in damaged | spoiled]
    if broken:
        lost = [(f.path, _damage(f), files.source_name(f.source), f.path, batch.taken_at) for f in broken]
        quarantine = quarantine.unionByName(frame_of(spark, lost, schemas.ddl("quarantine")))

    broken_goods = sum(file.source.format == "catalog" for file in broken)
    broken_events = Counter(_damage(file) for file in broken if file.source.format != "catalog")
    reasons = of_events.reasons + Counter({name: n for name, n in number.items() if name not in TAKEN})
    reasons += Counter(repeated_header=of_events.repeated) + broken_events
    of_lines = {
        "rows_events": number["event"],
        "rows_quarantined": reasons.total(),
        "rows_duplicate": number["duplicate"],
        "rows_ignored": of_events.passed,
    }
    counts = {
        "rows_in": sum(of_lines.values()),
        **of_lines,
        "rows_catalog": of_goods.passed,
        "rows_catalog_quarantined": of_goods.reasons.total() + of_goods.repeated + broken_goods,
    }
    sound = goods.where(F.col("reason").isNull())
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
        F.min("event_time").alias("first"),
        F.max("event_time").alias("last"),
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


def _without_event(goods: DataFrame) -> DataFrame:
    """Catalogue rows with the event columns that ``_tally`` needs."""
    nothing = F.lit(None).cast("timestamp")
    return goods.withColumns(
        {"agent": F.lit(None).cast("string"), "ignored": F.lit(True), "id_given": F.lit(False), "event_time": nothing}
    )


def _need_ids(goods: DataFrame, reasons: Counter[str], groups: list[reading.Group]) -> None:
    """Raises RefusedFiles for catalogues of JSON lines in which no row has an id."""
    if not reasons["missing_item_id"]:
        return
    headless = [file.path for g in groups if g.source.format == "catalog" and not g.columns for file in g.files]
    named = F.count(F.when(F.col("reason").isNull(), True))
    rows = goods.where(F.col("source_file").isin(headless)).groupBy("source_file").agg(named.alias("named"))
    if lacking := sorted(row["source_file"] for row in rows.where("named = 0").collect()):
        line = "catalogue {} has no row with an item_id; it cannot be ingested without item ids"
        raise RefusedFiles({path: HeadwaterError(line.format(path)) for path in lacking})


def _with_verdict(ready: DataFrame, ingest: Ingest, tally: Tally, stored: DataFrame) -> DataFrame:
    """Adds ``verdict``: ``event``, ``duplicate``, or a reason for quarantine (a bot, or the id of another event)."""
    facts = tally.ready
    if facts is None:
        return ready.withColumn("verdict", F.lit("event"))
    crawling = [(agent, "bot_agent") for agent in bots.crawlers(facts["agents"])]
    named = frame_of(ready.sparkSession, crawling, "agent string, bot_agent string")
    marked = ready.join(F.broadcast(named), on="agent", how="left")
    crawled = marked.where(F.col("bot_agent").isNotNull()).withColumn("verdict", F.col("bot_agent"))
    people = duplicates.with_copy(marked.where(F.col("bot_agent").isNull()))
    first = people.where(F.col("copy") == 1)
    robots = bots.behaviour(first, ingest.bot_events_per_minute, ingest.bot_regular_events)
    if not facts["given"]:
        # an id computed from the content includes the time, so only the days of this batch can hold it
        days = (aware(facts["first"]).date(), aware(facts["last"]).date())
        stored = stored.where(F.col("event_date").between(*days))
    people = duplicates.with_stored(people, stored, tally.few).join(robots, on="user_id", how="left")
    is_robot = F.col("event_type").isin(*bots.BROWSING) & F.col("bot_reason").isNotNull()
    verdict = (
        F.when(F.col("another"), "id_of_another_event")
        .when(F.col("copy") > 1, "duplicate")
        .when(is_robot, F.col("bot_reason"))
        .when(F.col("stored"), "duplicate")
        .otherwise("event")
    )
    judged = people.withColumn("verdict", verdict)
    return judged.select(*ready.columns, "verdict").unionByName(crawled.select(*ready.columns, "verdict"))


def _is_read_failure(error: Exception) -> bool:
    failed = any(name in str(error) for name in ("FAILED_READ_FILE", "PATH_NOT_FOUND"))
    return failed and not isinstance(error, HeadwaterError)
