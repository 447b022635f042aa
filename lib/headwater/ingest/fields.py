"""Our fields from a source's columns: renames, constants, and the two line formats JSON and CSV."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headwater.config import CATALOG_FIELDS, EVENT_FIELDS, Source
from headwater.errors import UsageError
from headwater.ingest.lines import blank_as_null, is_part, missing_as_null

FREE_TEXT = ("title", "text", "query")
MAX_DELIMITERS = 20_000
"""Spark's CSV parser fails the whole job at 20,480 columns; we quarantine such a line as malformed instead."""


def fields_of(source: Source) -> tuple[str, ...]:
    return CATALOG_FIELDS if source.format == "catalog" else EVENT_FIELDS


def json_fields(frame: DataFrame, source: Source) -> DataFrame:
    """Adds our fields, as text, from one JSON object per line; numbers keep up to 38 digits.

    A line that is not exactly one object, or repeats a key, gets the reason ``malformed_json``; an id that is an object, an array
    or a number whose digits would not all be kept gets ``bad_id``. A comma after the object is ignored.
    """
    text = F.trim("line")
    # parsed as an array, because Spark would silently read only the first of two objects on a line
    as_array = F.concat(F.lit("["), F.rtrim(text, F.lit(", \t\r")), F.lit("]"))
    parsed = frame.withColumn("json", F.when(F.startswith(text, F.lit("{")), F.try_parse_json(as_array)))
    is_single = F.try_variant_get("json", "$[1]", "variant").isNull()

    def found(column: str) -> Column:
        nested = _json_path(source, column.split("."))
        value = F.try_variant_get("json", nested, "string")
        if "." in column:
            value = F.coalesce(value, F.try_variant_get("json", _json_path(source, [column]), "string"))
        return value

    def is_no_id(field: str) -> Column:
        column = source.fields.get(field, field)
        kind = F.schema_of_variant(F.try_variant_get("json", _json_path(source, column.split(".")), "variant"))
        # only of what looks like one is the type asked for, which takes its time
        looks = F.rlike(F.col(field), F.lit(r"^[\[{]|^-?(\d+\.\d+(E-?\d+)?|Infinity)$"))
        return F.when(looks, F.rlike(kind, F.lit("^(OBJECT|ARRAY|DOUBLE|FLOAT)"))).otherwise(False)

    filled = parsed.withColumns(_field_values(source, found))
    ids = [name for name in ("user_id", "item_id", "event_id", "session_id") if name in fields_of(source)]
    bad = F.lit(False)
    for name in ids:
        bad = bad | F.coalesce(is_no_id(name), F.lit(False))
    reason = F.coalesce(
        "reason",
        F.when(F.col("json").isNull() | ~is_single, "malformed_json"),
        F.when(bad, "bad_id"),
    )
    return filled.withColumn("reason", reason).drop("json", "line")


def csv_fields(frame: DataFrame, source: Source, columns: tuple[str, ...]) -> DataFrame:
    """Adds our fields, as text, from a line in RFC 4180 format; a wrong number of columns is ``malformed_csv``.

    A line that holds only a part of a row, because a quoted field contains a line break, is malformed too.
    """
    text = F.col("line")
    names = [f"c{i}" for i in range(len(columns))]
    schema = ", ".join(f"{name} string" for name in [*names, "broken"])
    options = {
        "sep": source.delimiter, "quote": '"', "escape": '"', "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": "broken", "maxColumns": "20480",
    }  # fmt: skip
    count = F.length(text) - F.length(F.replace(text, F.lit(source.delimiter), F.lit("")))
    is_short = (F.octet_length(text) < MAX_DELIMITERS) | (count < MAX_DELIMITERS)  # only a long line is counted
    parsable = is_short & ~is_part(text, source.delimiter)
    parsed = frame.withColumn("csv", F.when(parsable, F.from_csv(text, schema, options)))

    def found(column: str) -> Column | None:
        return F.col(f"csv.c{columns.index(column)}") if column in columns else None

    broken = F.col("csv").isNull() | F.col("csv.broken").isNotNull()
    reason = F.coalesce("reason", F.when(broken, "malformed_csv"))
    return parsed.withColumns({**_field_values(source, found), "reason": reason}).drop("csv", "line")


def _field_values(source: Source, found: Callable[[str], Column | None]) -> dict[str, Column]:
    """Each of our fields: the source's value, else its constant, else null. A title may well be "None"."""
    values = {}
    for field in fields_of(source):
        value = found(source.fields.get(field, field))
        constant = source.constants.get(field)
        if isinstance(constant, float) and constant.is_integer():
            constant = int(constant)  # the config reads 42 as 42.0; as an id it is 42
        fallback = F.lit(None if constant is None else str(constant)).cast("string")
        cleaned = blank_as_null if field in FREE_TEXT else missing_as_null
        values[field] = fallback if value is None else F.coalesce(cleaned(value), fallback)
    return values


def _json_path(source: Source, keys: list[str]) -> str:
    path = "$[0]"
    for key in keys:
        if '"' not in key:
            path += f'["{key}"]'
        elif "'" not in key:
            path += f"['{key}']"
        else:
            raise UsageError(f"ingest.sources: the JSON key {key!r} of {source.origin} holds both kinds of quotes")
    return path
