"""The catalogue: rows from CSV or JSON lines, and the changes that they and new events make to ``items``."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from headwater import schemas
from headwater.frames import frame_of
from headwater.ingest.files import LandingFile
from headwater.ingest.judging import CONTROL

ITEM_FIELDS = ("title", "category", "text", "price", "available")
CURRENCY = r"^[^\d.,+-]*(?:(?<=\p{L})\.[^\d.,+-]*)?|\D+$"
"""What stands before an amount, perhaps an abbreviation with its point (Rs. 500), and what stands after it."""
THOUSANDS_SEPARATOR = r"[ \u00a0\u2009\u202f'\u2019]"
"""What separates thousands besides points and commas: spaces and apostrophes."""
MAX_AMOUNT_LENGTH = 100


def with_reason(rows: DataFrame, max_id_length: int) -> DataFrame:
    """Sets ``reason`` on catalogue rows with a bad id or an ``available`` that is neither yes or no nor a number in stock, and
    casts the other columns: a price that is not an amount becomes null, titles and categories are put on one line."""
    price = _amount(F.col("price"))
    available = F.coalesce(F.col("available").try_cast("boolean"), F.col("available").try_cast("double") > 0)
    reason = F.coalesce(
        "reason",
        F.when(F.col("item_id").isNull(), "missing_item_id")
        .when(F.length("item_id") > max_id_length, "id_too_long")
        .when(F.rlike("item_id", F.lit(CONTROL)), "bad_id")
        .when(F.col("available").isNotNull() & available.isNull(), "bad_available"),
    )
    on_one_line = {name: F.regexp_replace(name, r"\s*[\r\n]\s*", " ") for name in ("title", "category")}
    return rows.withColumns({**on_one_line, "reason": reason, "price": price, "available": available})


def _amount(text: Column) -> Column:
    """A number of at least 0, with or without a currency around it; null for anything else. A comma before one or two final
    digits, or after a single 0, is a decimal comma, any other comma separates thousands; so do spaces, apostrophes and two or
    more points."""
    short = F.when(F.length(text) <= MAX_AMOUNT_LENGTH, text)  # the end of a long text would take quadratic time
    bare = F.regexp_replace(short, CURRENCY, "")
    separated = F.rlike(bare, F.lit(rf"^[1-9]\d{{0,2}}({THOUSANDS_SEPARATOR})\d{{3}}(\1\d{{3}})*([.,]\d+)?$"))
    bare = F.when(separated, F.regexp_replace(bare, THOUSANDS_SEPARATOR, "")).otherwise(bare)
    decimals = F.rlike(bare, F.lit(r"^([1-9]\d{0,2}(\.\d{3})+|\d+),\d{1,2}$|^0,\d+$|^[1-9]\d{0,2}(\.\d{3}){2,}$"))
    thousands = F.rlike(bare, F.lit(r"^[1-9]\d{0,2}(,\d{3})+(\.\d+)?$"))
    plain = F.when(decimals, F.replace(F.replace(bare, F.lit("."), F.lit("")), F.lit(","), F.lit(".")))
    number = plain.when(thousands, F.replace(bare, F.lit(","), F.lit(""))).otherwise(bare).try_cast("double")
    return F.when((number >= 0) & (number < float("inf")), number)


def latest(rows: DataFrame, files: Iterable[LandingFile]) -> DataFrame:
    """One row per item, with the last non-null value of each column, by file time, then file name, then line."""
    times = [(file.path, file.modified_at) for file in files]
    rows = rows.join(
        F.broadcast(frame_of(rows.sparkSession, times, "source_file string, modified_at timestamp")), "source_file"
    )
    place = F.struct("modified_at", "source_file", "position")
    newest = [
        F.max_by(name, F.when(F.col(name).isNotNull(), place)).alias(name) for name in (*ITEM_FIELDS, "published")
    ]
    return rows.groupBy("item_id").agg(*newest)


def changed_items(items: DataFrame, catalogue: DataFrame, events: DataFrame, moment: datetime) -> DataFrame:
    """The rows of ``items`` that are new or may have changed.

    A column that a catalogue row leaves out keeps its old value. New items get the next numbers after the highest one: first
    items with events, by the time of their first event, then the others by id. Numbers are never reused. ``first_seen`` is
    when the catalogue says that the item was published; else ``moment`` or the first event, if that is earlier; for items without
    events in the first catalogue it is the time of the first event of any item, because they were there when the events began.
    """
    first_events = (
        events.where(F.col("item_id").isNotNull()).groupBy("item_id").agg(F.min("event_time").alias("first_event"))
    )
    mentioned = first_events.join(catalogue.withColumn("listed", F.lit(True)), on="item_id", how="full_outer")
    old = items.select("item_id", "item_idx", "first_seen", *(F.col(name).alias(f"old_{name}") for name in ITEM_FIELDS))
    known = mentioned.join(old, on="item_id", how="left")
    known = known.where(F.col("item_idx").isNull() | F.col("listed"))
    highest = items.agg(F.coalesce(F.max("item_idx"), F.lit(0)).alias("highest"))
    begun = first_events.agg(F.min("first_event").alias("begun"))
    order = Window.partitionBy(F.col("item_idx").isNull()).orderBy(F.col("first_event").asc_nulls_last(), "item_id")
    facts = known.crossJoin(F.broadcast(highest)).crossJoin(F.broadcast(begun))
    numbered = facts.withColumn("number", F.row_number().over(order))
    values = {name: F.coalesce(name, f"old_{name}") for name in ITEM_FIELDS}
    values["available"] = F.coalesce(values["available"], F.lit(True))
    values["item_idx"] = F.coalesce("item_idx", F.col("highest") + F.col("number"))
    appeared = F.coalesce("first_event", F.when(F.col("highest") == 0, F.col("begun")))
    published = F.when(F.col("published").isNotNull(), F.least("published", F.lit(moment)))
    values["first_seen"] = F.coalesce(published, "first_seen", F.least(appeared, F.lit(moment)))
    return numbered.withColumns(values).select(schemas.columns("items"))


def without_item_row(items: DataFrame, events: DataFrame) -> DataFrame:
    """The events whose item has no row yet."""
    return events.where(F.col("item_id").isNotNull()).join(items, on="item_id", how="left_anti")


ITEM_CHANGED = " OR ".join(f"NOT (new.{name} <=> old.{name})" for name in (*ITEM_FIELDS, "first_seen"))
"""The condition under which a merge updates an existing item."""
