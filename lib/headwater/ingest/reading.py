"""Files and ranges of messages as rows; a row that is not an event has a reason.

Files that are read the same way (source, columns, damaged or not) are read together. Nothing here writes.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from itertools import islice
from typing import IO, Any

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from headwater import local, privacy
from headwater.config import Config, Source
from headwater.errors import HeadwaterError, RefusedFiles, UnreadableFile, UsageError
from headwater.frames import names_in
from headwater.ingest import access_log, catalogue, fields, judging, kafka, lines, times
from headwater.ingest.files import LandingFile, source_name
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
    "category string, text string, price double, available boolean"
)
"""The columns of a line of a catalogue."""
REQUIRED_FIELDS = {"csv": ("user_id", "event_type", "timestamp"), "catalog": ("item_id",)}
"""Fields that a file must have by its header, or its source by a constant. A search has no item."""
COMPRESSED = (".bz2", ".zst", ".lz4", ".snappy", ".deflate")
"""What Spark unpacks and Python is not asked to."""
MIN_OBJECTS, MAX_OBJECTS = 10, 100
"""If none of a JSON file's first lines, at least this many, has a required field, the config names it wrongly. Fewer lines may
all be broken."""
MAX_COLUMNS_SHOWN = 20
MAX_FIRST_LINE_BYTES = 1_000_000
DAMAGE_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)
"""The errors of a gzip file with damaged content. Any other OSError may be gone at the next look."""


@dataclass
class Group:
    """Files of one source that are read together; ``columns`` and ``header`` apply to CSV only."""

    source: Source
    columns: tuple[str, ...] = ()
    header: str | None = None
    salvage: bool = False
    files: list[LandingFile] = field(default_factory=list)


def check(spark: SparkSession, config: Config) -> None:
    """Raises UsageError for a source that cannot be read as configured."""
    for source in config.ingest.sources:
        if source.format == "csv" and source.header is False:
            raise UsageError(f"ingest.sources: header of {source.origin} must be true or the list of its column names")
        if isinstance(source.header, list):
            _need_columns(source, tuple(source.header), f"the header of ingest.sources {source.origin}")
        times.check_format(spark, source)


def group(spark: SparkSession, files: list[LandingFile], damaged: set[str]) -> tuple[list[Group], set[str]]:
    """The files grouped by how they are read, and the paths of files that are damaged before their first line ends.

    Raises RefusedFiles, before any other line is read, for the files whose first line of text does not fit their source or cannot
    be read at present.
    """
    groups: dict[tuple, Group] = {}
    spoiled = set()
    refused: dict[str, HeadwaterError] = {}
    for file in files:
        source, header = file.source, None
        columns: tuple[str, ...] = ()
        if source.format == "csv" and isinstance(source.header, list):
            columns = tuple(source.header)
        elif source.format in ("csv", "catalog"):
            try:
                header = _first_line(spark, file, salvage=file.path in damaged)
            except DAMAGE_ERRORS:
                spoiled.add(file.path)
                continue
            except OSError as error:
                refused[file.path] = _unreadable(file, error.strerror or error)
                continue
            if header is None:
                continue  # an empty file
            if not header:
                columns = fields.fields_of(source)  # only blank lines
            elif source.format == "catalog" and header.lstrip().startswith("{"):
                header = None
            else:
                try:
                    columns = _columns(source, header, file.path)
                except HeadwaterError as error:
                    refused[file.path] = error
                    continue
        elif source.format == "json" and file.is_local and file.path not in damaged:
            try:
                _need_keys(source, _first_objects(file), file.path)
            except UsageError as error:
                refused[file.path] = error
                continue
            except OSError as error:
                refused[file.path] = _unreadable(file, error.strerror or error)
                continue
        key = (id(source), columns, header, file.path in damaged)
        groups.setdefault(key, Group(source, columns, header, file.path in damaged)).files.append(file)
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
            if source.format == "catalog" and group.columns:
                frame = lines.joined(frame, source.delimiter, self.config.ingest.max_line_bytes)
        frame = lines.with_text(frame, self.config.ingest.max_line_bytes, group.header)
        frame = frame.withColumn("source", F.lit(source_name(source)))
        if source.format == "combined_log":
            frame = access_log.log_fields(frame, self.rules)
            return frame.withColumn("event_time", times.log_moment(F.col("timestamp")))
        is_csv = source.format == "csv" or group.columns
        frame = fields.csv_fields(frame, source, group.columns) if is_csv else fields.json_fields(frame, source)
        if source.format == "catalog":
            return frame
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


def _columns(source: Source, header: str, where: str) -> tuple[str, ...]:
    """The columns that a CSV header names. Raises UsageError or HeadwaterError if it does not fit the source."""
    if source.format == "catalog" and header.lstrip().startswith("["):
        raise HeadwaterError(f"catalogue {where} is one JSON array; it must have one object per line")
    try:
        columns = tuple(name.strip() for name in next(csv.reader([header], delimiter=source.delimiter), []))
    except csv.Error as error:
        raise HeadwaterError(f"the first line of {where} is not a valid CSV header: {error}") from error
    _need_columns(source, columns, where)
    return columns


def _need_columns(source: Source, columns: tuple[str, ...], where: str) -> None:
    listing = ", ".join(map(repr, columns[:MAX_COLUMNS_SHOWN])) + (", …" if len(columns) > MAX_COLUMNS_SHOWN else "")
    used = [source.fields.get(name, name) for name in fields.fields_of(source)]
    # without a header the first line is data, which may name a person
    found = f"the columns are {listing}" if set(used) & set(columns) else "its first line names no column at all"
    if twice := [column for column in used if columns.count(column) > 1]:
        raise UsageError(f"{where} has several columns {twice[0]!r}; {found}")
    for name, column in source.fields.items():
        if column not in columns:
            if source.format == "catalog" and name == "item_id":
                break
            raise UsageError(f"{where} has no column {column!r}, which ingest.sources names for {name}; {found}")
    for name in REQUIRED_FIELDS[source.format]:
        column = source.fields.get(name, name)
        if column in columns or name in source.constants:
            continue
        if source.format == "catalog":
            raise HeadwaterError(
                f"catalogue {where} has no column {column!r}; it cannot be ingested without item ids; {found}"
            )
        raise UsageError(
            f"{where} has no column {name!r}, and ingest.sources gives no other name or constant for it; {found}"
        )


def _need_keys(source: Source, objects: list[dict[str, Any]], where: str) -> None:
    """Raises UsageError if so many JSON objects lack a required field that its name in the source must be wrong."""
    if len(objects) < MIN_OBJECTS:
        return
    for name in REQUIRED_FIELDS["csv"]:
        column = source.fields.get(name, name)
        if name not in source.constants and not any(_has(each, column) for each in objects):
            keys = ", ".join(map(repr, sorted({key for each in objects for key in each})[:MAX_COLUMNS_SHOWN]))
            raise UsageError(
                f"none of the first {len(objects)} lines of {where} has {column!r}, which ingest.sources reads as {name}; "
                f"the keys are {keys}"
            )


def _has(found: Any, column: str) -> bool:
    """Whether a JSON object has a key, or a dotted path of keys."""
    if isinstance(found, dict) and column in found:
        return True
    first, _, rest = column.partition(".")
    return bool(rest) and isinstance(found, dict) and _has(found.get(first), rest)


def _first_objects(file: LandingFile) -> list[dict[str, Any]]:
    """The JSON objects among the first ``MAX_OBJECTS`` lines of a local file; none if it is compressed otherwise than by gzip."""
    if file.path.endswith(COMPRESSED):
        return []
    found = []
    with _opened(file) as stream:
        for line in islice(iter(lambda: stream.readline(MAX_FIRST_LINE_BYTES), b""), MAX_OBJECTS):
            with suppress(ValueError, RecursionError):
                found.append(json.loads(_bare(line.decode("utf-8", errors="replace")).strip(" ,\t\n\r")))
    return [each for each in found if isinstance(each, dict)]


def _first_line(spark: SparkSession, file: LandingFile, salvage: bool) -> str | None:
    """The first line of a file that is not blank, without BOM and CR as in ``lines.with_text``; "" if all lines are blank, None if
    the file is empty.

    Raises OSError, or one of ``DAMAGE_ERRORS``, if a local file cannot be read, and EOFError if nothing can be salvaged of a file
    that is known to be damaged.
    """
    if file.is_local and not file.path.endswith(COMPRESSED):
        text = None
        with _opened(file) as stream:
            while not text and (line := stream.readline(MAX_FIRST_LINE_BYTES)):
                text = _bare(line.removesuffix(b"\n").decode("utf-8", errors="replace"))
        return text
    frame = lines.of_files(spark, [file.uri], salvage)
    if row := frame.where(~lines.is_blank(F.col("value"))).first():
        return _bare(row["value"])
    if not frame.isEmpty():
        return ""
    if salvage:
        raise EOFError(file.path)
    return None


def _opened(file: LandingFile) -> IO[bytes]:
    """The bytes of a local file; gzip is unpacked."""
    return gzip.open(file.uri) if file.path.endswith(".gz") else open(file.uri, "rb")  # type: ignore[return-value]


def _bare(line: str) -> str:
    text = line.rstrip("\r").removeprefix("\ufeff")
    return text if text.strip(" \t") else ""


def _fault(file: LandingFile) -> Exception | None:
    """Why a file cannot be read: a HeadwaterError or one of ``DAMAGE_ERRORS``. A local file is opened, and gzip unpacked."""
    if not file.has_utf8_name:
        return HeadwaterError(f"the name of {file.path} is not UTF-8; rename the file")
    if file.is_local and ":" in file.path.rpartition("/")[2]:
        return HeadwaterError(f"the name of {file.path} has a colon, and Spark reads no such file; rename it")
    try:
        if file.is_local:
            with _opened(file) as stream:
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
