"""Kafka topics as files: a range of one partition's messages is ingested exactly once, under the name in the ledger.

``kafka://clicks/0/17-42`` is partition 0 of the topic ``clicks`` from offset 17 up to, not including, 42. Offsets are stored
only in ``ingest_files``; there is no consumer group and no checkpoint. A repeated batch reads exactly the same messages,
because its ranges are recorded before it begins. The rejected alternative, Spark's streaming source with a checkpoint, would
be a second ledger to keep consistent with the tables.

The module talks to the broker through the client that comes with Spark's connector.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from headwater.config import Source
from headwater.errors import BrokerError, HeadwaterError, UsageError
from headwater.frames import frame_of
from headwater.ingest.files import LandingFile
from headwater.ingest.lines import TOPIC_PREFIX
from headwater.spark import KAFKA
from headwater.text import first_line

TIMEOUT_SECONDS = 20
"""A job fails after this long without an answer from a broker, instead of after minutes."""
CLIENT_ERROR = "org.apache.kafka.common.errors."
"""The text that a failed Spark task's message contains if Kafka's client gave up."""
RANGE = re.compile(re.escape(TOPIC_PREFIX) + r"([^/]+)/(\d+)/(\d+)-(\d+)")


@dataclass(frozen=True, order=True)
class Range:
    """The messages ``first … until - 1`` of one partition."""

    topic: str
    partition: int
    first: int
    until: int

    @classmethod
    def parse(cls, path: str) -> Range | None:
        """The range that a path of the ledger names; None for the path of a file."""
        found = RANGE.fullmatch(path)
        return cls(found[1], *(int(part) for part in found.groups()[1:])) if found else None

    @property
    def path(self) -> str:
        return f"{TOPIC_PREFIX}{self.topic}/{self.partition}/{self.first}-{self.until}"

    @property
    def size(self) -> int:
        return self.until - self.first

    def clip(self, ends: dict[int, tuple[int, int]]) -> Range:
        """The rest of the range if its partition now begins later (``ends``: first offset, and one after the last)."""
        oldest = ends.get(self.partition, (0, 0))[0]
        return replace(self, first=max(self.first, oldest), until=max(self.until, oldest))


def partition_or_file(path: str) -> str:
    """The partition that a path of the ledger belongs to; for a file, the path itself."""
    return path.rpartition("/")[0] if path.startswith(TOPIC_PREFIX) else path


def latest_entries(ledger: DataFrame) -> DataFrame:
    """Rows of ``ingest_files``: all files, but only the newest range of each partition of a topic."""
    is_range = F.startswith("path", F.lit(TOPIC_PREFIX))
    partition = F.when(is_range, F.substring_index("path", "/", 4)).otherwise(F.col("path"))
    newest = F.max_by(F.struct(*ledger.columns), "batch").alias("row")
    return ledger.groupBy(partition.alias("partition")).agg(newest).select("row.*")


def find(
    spark: SparkSession, sources: list[Source], ledger: Iterable[Any], now: datetime, warn: Callable[..., Any]
) -> tuple[list[LandingFile], int]:
    """The ranges to ingest from all topics, and how many messages wait beyond ``max_messages``.

    The result includes the ranges that ``ledger`` (``latest_entries``) already lists, just as files on disk are found again;
    their ``uri`` names the part that the topic still has. Raises UsageError if a topic does not exist, HeadwaterError if the
    connector is missing and BrokerError if brokers do not answer.
    """
    topics = [source for source in sources if source.format == "kafka"]
    if not topics:
        return [], 0
    taken = [one for row in ledger if (one := Range.parse(row["path"]))]
    need_connector(spark)
    found, waiting = [], 0
    for source in topics:
        of_topic = [one for one in taken if one.topic == source.topic]
        ends = offsets(spark, source)
        ranges, left = plan(source, of_topic, ends, warn)
        found += [LandingFile(one.path, one.clip(ends).path, None, now, source) for one in (*of_topic, *ranges)]
        waiting += left
    return found, waiting


def plan(
    source: Source, taken: list[Range], ends: dict[int, tuple[int, int]], warn: Callable[..., Any]
) -> tuple[list[Range], int]:
    """The next range of each partition, at most ``max_messages`` in all, and how many messages wait beyond them. What a partition
    leaves of its share goes to those with more messages.

    ``ends`` holds each partition's first offset and the one after its last. ``starting`` matters only for a topic that was never
    read; if it is ``latest``, empty ranges record the starting offsets. Raises HeadwaterError if a partition ends before the
    last offset that was read from it.
    """
    if not taken and source.starting == "latest":
        return [Range(source.topic, partition, end, end) for partition, (_, end) in sorted(ends.items())], 0
    done = {one.partition: one.until for one in taken}
    unread = []
    for partition, (oldest, end) in sorted(ends.items()):
        first = done.get(partition, oldest)
        have_expired = first < oldest
        if first > end:
            raise HeadwaterError(
                f"partition {partition} of topic {source.topic} ends at offset {end}, but offsets up to {first} were ingested: was "
                "the topic recreated? Give it another name, or delete its rows from the table ingest_files"
            )
        if have_expired:
            warn("messages expired before they were ingested; they are lost", topic=source.topic, partition=partition,
                 first=first, count=oldest - first)  # fmt: skip
            first = oldest
        if end > first or have_expired:  # an empty range records that they are lost
            unread.append(Range(source.topic, partition, first, end))
    ranges, allowed = [], source.max_messages
    for number, one in enumerate(sorted(unread, key=lambda one: one.size)):
        share = max(1, allowed // (len(unread) - number))
        ranges.append(replace(one, until=min(one.until, one.first + share)))
        allowed -= ranges[-1].size
    return sorted(ranges), sum(one.size for one in unread) - sum(one.size for one in ranges)


def read(spark: SparkSession, source: Source, files: list[LandingFile]) -> DataFrame:
    """The messages of some ranges: ``value`` (unchanged bytes, null for a tombstone), ``source_file`` (the partition) and
    ``position`` (partition and offset)."""
    ranges = [one for file in files if (one := Range.parse(file.uri)) and one.size]
    ddl = "value string, source_file string, position struct<block: bigint, line: bigint>"
    if not ranges:
        return frame_of(spark, [], ddl)
    assign = {source.topic: [one.partition for one in ranges]}
    starts = {source.topic: {str(one.partition): one.first for one in ranges}}
    stops = {source.topic: {str(one.partition): one.until for one in ranges}}
    reader = spark.read.format("kafka").option("failOnDataLoss", "true").option("assign", json.dumps(assign))
    for key, value in settings(spark, source).items():
        reader = reader.option(f"kafka.{key}", value)
    reader = reader.option("startingOffsets", json.dumps(starts)).option("endingOffsets", json.dumps(stops))
    place = F.struct(F.col("partition").cast("bigint").alias("block"), F.col("offset").alias("line"))
    return reader.load().select(
        F.col("value").cast("string").alias("value"),
        F.concat_ws("/", F.lit(f"{TOPIC_PREFIX}{source.topic}"), F.col("partition").cast("string")).alias(
            "source_file"
        ),
        place.alias("position"),
    )


def offsets(spark: SparkSession, source: Source) -> dict[int, tuple[int, int]]:
    """Each partition's first offset and the one after its last. The request never creates a topic.

    Raises UsageError if the topic does not exist, BrokerError if brokers do not answer.
    """
    jvm: Any = spark._jvm
    timeout = jvm.java.time.Duration.ofSeconds(TIMEOUT_SECONDS)
    with explain_client_errors(source):
        consumer = _consumer(spark, source)
        try:
            known = consumer.partitionsFor(source.topic, timeout)
            partitions = [
                jvm.org.apache.kafka.common.TopicPartition(source.topic, one.partition()) for one in known or []
            ]
            if not partitions:
                raise UsageError(
                    f"topic {source.topic} does not exist at {source.brokers}; create it or correct ingest.sources"
                )
            listed = jvm.java.util.ArrayList(partitions)
            first, end = consumer.beginningOffsets(listed, timeout), consumer.endOffsets(listed, timeout)
            return {one.partition(): (int(first[one]), int(end[one])) for one in partitions}
        finally:
            consumer.close(jvm.java.time.Duration.ZERO)


def settings(spark: SparkSession, source: Source) -> dict[str, str]:
    """The client's settings: ours, then those of ``client_file``, a Java properties file as Kafka's own tools read it.

    Raises UsageError if that file cannot be read.
    """
    own = {
        "bootstrap.servers": source.brokers,
        "isolation.level": "read_committed",
        "allow.auto.create.topics": "false",
        "request.timeout.ms": str(TIMEOUT_SECONDS * 1000),
        "default.api.timeout.ms": str(TIMEOUT_SECONDS * 1000),
    }
    if not source.client_file:
        return own
    try:
        text = Path(source.client_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"client_file {source.client_file} of topic {source.topic} cannot be read: {error}") from None
    jvm: Any = spark._jvm
    read = jvm.java.util.Properties()
    read.load(jvm.java.io.StringReader(text))
    return own | {str(key): str(read.getProperty(key)).strip() for key in read.stringPropertyNames()}


def need_connector(spark: SparkSession) -> None:
    """Raises HeadwaterError if the session has no Kafka connector."""
    jvm: Any = spark._jvm
    try:
        loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
        loader.loadClass("org.apache.spark.sql.kafka010.KafkaSourceProvider")
    except Exception:
        raise HeadwaterError(
            f"Kafka's connector is not on Spark's class path: spark-submit --packages {KAFKA} …"
        ) from None


@contextmanager
def explain_client_errors(source: Source) -> Iterator[None]:
    """Turn any error of the client into one sentence that names the brokers."""
    try:
        yield
    except HeadwaterError:
        raise
    except Exception as error:
        cause: Any = getattr(error, "java_exception", None)
        if cause is None:
            raise
        while cause.getCause() is not None:
            cause = cause.getCause()
        reason = first_line(cause.getMessage() or cause)
        if cause.getClass().getSimpleName() == "ConfigException":
            raise UsageError(f"topic {source.topic}: brokers {source.brokers} cannot be used: {reason}") from None
        raise BrokerError(
            f"topic {source.topic}: brokers {source.brokers} do not answer or refuse ({reason}); "
            "start them or correct ingest.sources"
        ) from None


@contextmanager
def explain_read_errors(sources: list[Source]) -> Iterator[None]:
    """Turn the error of a task that lost its brokers while it read messages into one sentence that names the brokers."""
    try:
        yield
    except Exception as error:
        if isinstance(error, HeadwaterError) or CLIENT_ERROR not in str(error):
            raise
        brokers = ", ".join(sorted({source.brokers for source in sources if source.format == "kafka"}))
        raise BrokerError(
            f"brokers {brokers} stopped answering while messages were being read; start them again"
        ) from error


def _consumer(spark: SparkSession, source: Source) -> Any:
    jvm: Any = spark._jvm
    properties = jvm.java.util.Properties()
    decoder = "org.apache.kafka.common.serialization.ByteArrayDeserializer"
    ours = {"key.deserializer": decoder, "value.deserializer": decoder, "enable.auto.commit": "false"}
    for key, value in {**settings(spark, source), **ours}.items():
        properties.setProperty(key, value)
    return jvm.org.apache.kafka.clients.consumer.KafkaConsumer(properties)
