"""How a file is laid out, told by its first lines, and whether it fits its source; if not, it waits for a corrected config."""

from __future__ import annotations

import csv
import gzip
import json
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

import structlog
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from headwater.config import Source
from headwater.errors import HeadwaterError, UsageError
from headwater.ingest import fields, lines
from headwater.ingest.files import LandingFile
from headwater.schemas import EVENT_TYPES

log = structlog.get_logger()

REQUIRED_FIELDS = {"csv": ("user_id", "event_type", "timestamp"), "catalog": ("item_id",)}
"""Fields that a file must have by its header, or its source by a constant. A search has no item."""
COMPRESSED = (".bz2", ".zst", ".lz4", ".snappy", ".deflate")
"""What Spark unpacks and Python is not asked to."""
MIN_OBJECTS, MAX_OBJECTS = 10, 100
"""If none of a JSON file's first lines, at least this many, is an object, the file is of another format; if none has a required
field, the config names it wrongly. Fewer lines may all be broken."""
WITH_ITEM = tuple(kind for kind in EVENT_TYPES if kind != "search")
MISSING = object()
MAX_COLUMNS_SHOWN = 20
MAX_FIRST_LINE_BYTES = 1_000_000


@dataclass(frozen=True)
class Layout:
    """``columns``: those of a CSV file, none for other formats; ``header``: its first line that is not blank, if that names
    them."""

    columns: tuple[str, ...] = ()
    header: str | None = None


def of_file(spark: SparkSession, file: LandingFile, salvage: bool) -> Layout | None:
    """The layout of a file, None if it is empty. ``salvage``: the file is known to be damaged.

    Raises UsageError or HeadwaterError if its first lines do not fit its source, OSError if it cannot be read at present, and an
    error of gzip if it is damaged before its first line ends.
    """
    source = file.source
    if source.format == "csv" and isinstance(source.header, list):
        return Layout(tuple(source.header))
    if source.format in ("csv", "catalog"):
        header = _first_line(spark, file, salvage)
        if header is None:
            return None
        if not header:
            return Layout(fields.fields_of(source), header)  # only blank lines
        if source.format == "csv" or not header.lstrip().startswith("{"):
            return Layout(_columns(source, header, file.path), header)
    if source.format in ("json", "catalog") and file.is_local and not salvage:
        first = _first_lines(file)
        objects = [value for line in first if isinstance(value := _parsed(line), dict)]
        if source.format == "json":
            _need_objects(objects, first, file.path)
            _need_keys(source, objects, file.path)
        _warn_of_missing_keys(source, objects, file.path)
    return Layout()


def _columns(source: Source, header: str, where: str) -> tuple[str, ...]:
    """The columns that a CSV header names. Raises UsageError or HeadwaterError if it does not fit the source."""
    if source.format == "catalog" and header.lstrip().startswith("["):
        raise HeadwaterError(f"catalogue {where} is one JSON array; it must have one object per line")
    try:
        columns = tuple(name.strip() for name in next(csv.reader([header], delimiter=source.delimiter), []))
    except csv.Error as error:
        raise HeadwaterError(f"the first line of {where} is not a valid CSV header: {error}") from error
    need_columns(source, columns, where)
    return columns


def need_columns(source: Source, columns: tuple[str, ...], where: str) -> None:
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


def _need_objects(objects: list[dict[str, Any]], first: list[str], where: str) -> None:
    """Raises UsageError if a file with these first lines is not one of JSON objects, one per line."""
    if objects or not first:
        return
    if first[0].startswith("["):
        raise UsageError(f"{where} is one JSON array; format json reads one object per line")
    if len(first) >= MIN_OBJECTS:
        raise UsageError(
            f"none of the first {len(first)} lines of {where} is a JSON object; format json reads one object per line"
        )


def _need_keys(source: Source, objects: list[dict[str, Any]], where: str) -> None:
    """Raises UsageError if so many of a file's JSON objects lack a required field that its name in the source must be wrong."""
    with_item = [each for each in objects if _event_type(source, each) in WITH_ITEM]
    for name in (*REQUIRED_FIELDS["csv"], "item_id"):
        column, concerned = source.fields.get(name, name), with_item if name == "item_id" else objects
        if name in source.constants or len(concerned) < MIN_OBJECTS:
            continue
        if all(_value(each, column) is MISSING for each in concerned):
            keys = ", ".join(map(repr, sorted({key for each in concerned for key in each})[:MAX_COLUMNS_SHOWN]))
            what = "lines" if len(concerned) == len(objects) else "lines with an event other than a search"
            raise UsageError(
                f"none of the first {len(concerned)} {what} of {where} has {column!r}, which ingest.sources reads as {name}; "
                f"the keys are {keys}"
            )


def _warn_of_missing_keys(source: Source, objects: list[dict[str, Any]], where: str) -> None:
    """Logs the optional fields that the config names and none of these JSON objects has: files without them are common, but so
    are misspelt names."""
    for name, column in source.fields.items():
        if len(objects) >= MIN_OBJECTS and all(_value(each, column) is MISSING for each in objects):
            log.warning("none of a file's first lines has a field", file=where, key=column, field=name)


def _event_type(source: Source, found: dict[str, Any]) -> str | None:
    """The type of the event in a JSON object, as ``judging.with_event_type`` reads it."""
    theirs = source.constants.get("event_type") or _value(found, source.fields.get("event_type", "event_type"))
    renamed = {name.lower(): ours for name, ours in source.event_types.items()}
    lower = str(theirs).lower()
    return renamed.get(lower, lower)


def _value(found: Any, column: str) -> Any:
    """The value of a key, or a dotted path of keys, in a JSON object; ``MISSING`` if it has no such key."""
    if isinstance(found, dict) and column in found:
        return found[column]
    first, _, rest = column.partition(".")
    return _value(found.get(first), rest) if rest and isinstance(found, dict) else MISSING


def _first_lines(file: LandingFile) -> list[str]:
    """The first ``MAX_OBJECTS`` lines of a local file, without blank ones and outer blanks; none if it is compressed otherwise than
    by gzip."""
    if file.path.endswith(COMPRESSED):
        return []
    with opened(file) as stream:
        read = islice(iter(lambda: stream.readline(MAX_FIRST_LINE_BYTES), b""), MAX_OBJECTS)
        found = [_bare(line.decode("utf-8", errors="replace")).strip(" ,\t\n\r") for line in read]
    return list(filter(None, found))


def _parsed(line: str) -> Any:
    """The JSON value of a line; None if it is broken."""
    with suppress(ValueError, RecursionError):
        return json.loads(line)
    return None


def _first_line(spark: SparkSession, file: LandingFile, salvage: bool) -> str | None:
    """The first line of a file that is not blank, without BOM and CR as in ``lines.with_text``; "" if all lines are blank, None if
    the file is empty.

    Raises OSError, or one of ``DAMAGE_ERRORS``, if a local file cannot be read, and EOFError if nothing can be salvaged of a file
    that is known to be damaged.
    """
    if file.is_local and not file.path.endswith(COMPRESSED):
        text = None
        with opened(file) as stream:
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


def opened(file: LandingFile) -> IO[bytes]:
    """The bytes of a local file; gzip is unpacked."""
    return gzip.open(file.uri) if file.path.endswith(".gz") else open(file.uri, "rb")  # type: ignore[return-value]


def _bare(line: str) -> str:
    text = line.rstrip("\r").removeprefix("\ufeff")
    return text if text.strip(" \t") else ""
