"""Files and ranges of messages as rows; a row that is not an event has a reason.

Files that are read the same way (source, columns, damaged or not) are read together. Nothing here writes.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from headwater import local, privacy
from headwater.config import Config, Source
from headwater.errors import HeadwaterError, RefusedFiles, UnreadableFile, UsageError
from headwater.frames import names_in
from headwater.ingest import access_log, catalogue, fields, judging, kafka, layouts, lines, times
from headwater.ingest.files import LandingFile, source_name
from headwater.ingest.layouts import Layout
from headwater.text import first_line

POSITION = "position struct<block: bigint, line: bigint>"
EVENT_DDL = (
    f"source string, source_file string, {POSITION}, raw string, reason string, ignored boolean, agent string, "
    "user_id string, item_id string, event_type string, event_time timestamp, event_id string, id_given boolean, "
    "value double, query string, session_id string"
)
"""The columns of a line of an event file, judged by itself."""
CATALOGUE_DDL = (
    f"source string, source_file string, {POSITION}, raw string, reason string, item_id string, title string, "
    "category string, text string, price double, available boolean, published timestamp"
)
"""The columns of a line of a catalogue."""
DAMAGE_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)
"""The errors of a gzip file with damaged content. Any other OSError may be gone at the next look."""


@dataclass
class Group:
    """Files of one source that are read together; ``salvage``: they are damaged, and read as far as possible."""

    source: Source
    layout: Layout
    salvage: bool = False
    files: list[LandingFile] = field(default_factory=list)


def check(spark: SparkSession, config: Config) -> None:
    """Raises UsageError for a source that cannot be read as configured."""
    for source in config.ingest.sources:
        if source.format == "csv" and source.header is False:
            raise UsageError(f"ingest.sources: header of {source.origin} must be true or the list of its column names")
        if isinstance(source.header, list):
            layouts.need_columns(source, tuple(source.header), f"the header of ingest.sources {source.origin}")
        times.check_format(spark, source)


def group(spark: SparkSession, files: list[LandingFile], damaged: set[str]) -> tuple[list[Group], set[str]]:
    """The files grouped by how they are read, and the paths of files that are damaged before their first line ends.

    Raises RefusedFiles, before any other line is read, for the files whose first lines do not fit their source or cannot be read
    at present.
    """
    groups: dict[tuple, Group] = {}
    spoiled = set()
    refused: dict[str, HeadwaterError] = {}
    for file in files:
        salvage = file.path in damaged
        try:
            layout = layouts.of_file(spark, file, salvage)
        except DAMAGE_ERRORS:
            spoiled.add(file.path)
        except HeadwaterError as error:
            refused[file.path] = error
        except OSError as error:
            refused[file.path] = _unreadable(file, error.strerror or error)
        else:
            if layout is not None:  # otherwise the file is empty
                key = (id(file.source), layout, salvage)
                groups.setdefault(key, Group(file.source, layout, salvage)).files.append(file)
    if refused:
        raise RefusedFiles(refused)
    return list(groups.values()), spoiled


@dataclass(frozen=True)
class Reader:
    """Reads files. ``root``: the landing folder; ``rules``: the url rules for access logs; ``key``: the secret for pseudonyms, None
    to store ids unchanged."""

    spark: SparkSession
    root: str
    config: Config
    rules: list[access_log.Rule]
    key: bytes | None

    def events(self, groups: list[Group], limit: judging.Limits) -> DataFrame | None:
        """Every line of the event files, as in ``EVENT_DDL``; ``reason`` is null for an event. None without files."""
        frames = [self._parsed(group) for group in groups if group.source.format != "catalog"]
        if not frames:
            return None
        frame = judging.with_reason(reduce(DataFrame.unionByName, frames), limit)
        if self.key is None:
            frame = judging.with_user(frame)
        else:
            frame = privacy.with_pseudonyms(
                frame,
                self.key,
                {
                    "user_id": lambda hashed: hashed(F.coalesce("user_id", "visitor")),
                    "session_id": lambda hashed: hashed(F.col("session_id")),
                    "event_id": lambda hashed: hashed(F.col("event_id")),
                    "raw": _redacted,
                },
            )
        return judging.with_event_id(frame).select(*names_in(EVENT_DDL))

    def catalogue(self, groups: list[Group]) -> DataFrame | None:
        """Every row of the catalogue files, as in ``CATALOGUE_DDL``. None without files."""
        frames = [self._parsed(group) for group in groups if group.source.format == "catalog"]
        if not frames:
            return None
        frame = catalogue.with_reason(reduce(DataFrame.unionByName, frames), self.config.ingest.max_id_length)
        if self.key is not None:
            frame = privacy.with_pseudonyms(frame, self.key, {"raw": _redacted})
        return frame.select(*names_in(CATALOGUE_DDL))

    def _parsed(self, group: Group) -> DataFrame:
        source = group.source
        if source.format == "kafka":
            frame = kafka.read(self.spark, source, group.files)
        else:
            frame = lines.read(self.spark, self.root, [file.uri for file in group.files], group.salvage)
            if source.format == "catalog" and group.layout.columns:
                frame = lines.joined(frame, source.delimiter, self.config.ingest.max_line_bytes)
        frame = lines.with_text(frame, self.config.ingest.max_line_bytes, group.layout.header)
        frame = frame.withColumn("source", F.lit(source_name(source)))
        if source.format == "combined_log":
            frame = access_log.log_fields(frame, self.rules)
            return frame.withColumn("event_time", times.log_moment(F.col("timestamp")))
        is_csv = source.format == "csv" or group.layout.columns
        frame = fields.csv_fields(frame, source, group.layout.columns) if is_csv else fields.json_fields(frame, source)
        if source.format == "catalog":
            zone, pattern = source.time_zone, source.time_format
            published = times.published(F.col("published"), self.config.ingest.earliest, zone, pattern)
            return frame.withColumn("published", published)
        frame = judging.with_event_type(frame, source)
        moment = times.moment(F.col("timestamp"), source.time_zone, source.time_format)
        nothing = F.lit(None).cast("string")
        return frame.withColumns({"event_time": moment, "visitor": nothing, "agent": nothing})


def surplus_headers(frame: DataFrame) -> DataFrame:
    """Lines equal to their file's header, except the first of each file: they appear where exports were concatenated."""
    order = Window.partitionBy("source_file").orderBy("position")
    headers = frame.where(F.col("reason") == "header").withColumn("nth", F.row_number().over(order))
    return headers.where(F.col("nth") > 1).withColumn("reason", F.lit("repeated_header")).drop("nth")


def quarantined(frame: DataFrame, moment: datetime) -> DataFrame:
    """Rows of ``quarantine`` from lines that have a ``reason``."""
    origin = lines.origin().alias("source_file")
    return frame.select("raw", "reason", "source", origin, F.lit(moment).alias("ingested_at"))


def damaged(files: list[LandingFile]) -> set[str]:
    """The local gzip files that cannot be unpacked to their end; it costs little compared with Spark's work per line.

    Raises RefusedFiles for local files of any format whose names Spark cannot read, or that cannot be opened or read at
    present.
    """
    with ThreadPoolExecutor(local.cores()) as pool:
        faults = dict(zip(files, pool.map(_fault, files), strict=True))
    if refused := {file.path: error for file, error in faults.items() if isinstance(error, HeadwaterError)}:
        raise RefusedFiles(refused)
    return {file.path for file, error in faults.items() if error is not None}


def undecodable(spark: SparkSession, files: list[LandingFile]) -> set[str]:
    """The files of any format, but not messages, that Spark cannot read to their end although their bytes can be read; each is
    tried separately.

    Raises RefusedFiles for files that are gone or whose bytes cannot be read at present.
    """
    failing = [file for file in files if file.source.format != "kafka" and not _spark_reads(spark, file)]
    refused: dict[str, HeadwaterError] = {}
    for file in failing:
        try:
            _read_all_bytes(spark, file)
        except Exception as error:
            refused[file.path] = _unreadable(file, getattr(error, "java_exception", error))
    if refused:
        raise RefusedFiles(refused)
    return {file.path for file in failing}


def _redacted(hashed: Callable) -> Column:
    return F.concat(F.lit("[redacted] "), hashed(F.col("raw")))


def _fault(file: LandingFile) -> Exception | None:
    """Why a file cannot be read: a HeadwaterError or one of ``DAMAGE_ERRORS``. A local file is opened, and gzip unpacked."""
    if not file.has_utf8_name:
        return HeadwaterError(f"the name of {file.path} is not UTF-8; rename the file")
    if file.is_local and ":" in file.path.rpartition("/")[2]:
        return HeadwaterError(f"the name of {file.path} has a colon, and Spark reads no such file; rename it")
    try:
        if file.is_local:
            with layouts.opened(file) as stream:
                while stream.read(1 << 20) and file.path.endswith(".gz"):
                    pass
    except DAMAGE_ERRORS as error:
        return error
    except OSError as error:
        return _unreadable(file, error.strerror or error)
    return None


def _spark_reads(spark: SparkSession, file: LandingFile) -> bool:
    try:
        lines.of_files(spark, [file.uri]).write.format("noop").mode("overwrite").save()
    except Exception:
        return False
    return True


def _read_all_bytes(spark: SparkSession, file: LandingFile) -> None:
    """Reads all bytes of a file of any store. Raises Java's error if that fails."""
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(file.uri)
    stream = path.getFileSystem(spark._jsc.hadoopConfiguration()).open(path)  # type: ignore[attr-defined]
    jvm.org.apache.hadoop.io.IOUtils.copyBytes(stream, jvm.java.io.OutputStream.nullOutputStream(), 1 << 20, True)


def _unreadable(file: LandingFile, why: object) -> UnreadableFile:
    return UnreadableFile(f"{file.path} cannot be read: {first_line(why)}")
