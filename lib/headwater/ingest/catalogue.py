"""The catalogue: rows of CSV or JSON lines, and what they and new events mean for the table of items."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from headwater import schemas
from headwater.in_hand import constant
from headwater.ingest.files import LandingFile
from headwater.ingest.judging import CONTROL

DESCRIBED = ("title", "category", "text", "price", "available")


def with_reason(rows: DataFrame, max_id_length: int) -> DataFrame:
    """Judges catalogue rows by their id and by whether ``available``, a word for yes or no or a number in stock, says either;
    types the rest: a price that is no amount is no price. Titles and categories come on one line."""
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
    """A number from 0 on, with or without a currency around it; a comma before one or two last digits parts decimals, another
    one thousands. Null for anything else."""
    bare = F.regexp_replace(text, r"^[^\d.,+-]+|[^\d.,]+$", "")
    decimals = F.rlike(bare, F.lit(r"^(\d{1,3}(\.\d{3})+|\d+),\d{1,2}$"))
    thousands = F.rlike(bare, F.lit(r"^\d{1,3}(,\d{3})+(\.\d+)?$"))
    plain = F.when(decimals, F.replace(F.replace(bare, F.lit("."), F.lit("")), F.lit(","), F.lit(".")))
    number = plain.when(thousands, F.replace(bare, F.lit(","), F.lit(""))).otherwise(bare).try_cast("double")
    return F.when((number >= 0) & (number < float("inf")), number)


def latest(rows: DataFrame, files: Iterable[LandingFile]) -> DataFrame:
    """One row an item: of each column the last value that a row has, by the time of its file, then its name, then line."""
    times = [(file.path, file.modified_at) for file in files]
    rows = rows.join(
        F.broadcast(constant(rows.sparkSession, times, "source_file string, modified_at timestamp")), "source_file"
    )
    place = F.struct("modified_at", "source_file", "position")
    newest = [F.max_by(name, F.when(F.col(name).isNotNull(), place)).alias(name) for name in DESCRIBED]
    return rows.groupBy("item_id").agg(*newest)


def merged(items: DataFrame, catalogue: DataFrame, events: DataFrame, moment: datetime) -> DataFrame:
    """The rows of ``items`` that are new or may have changed.

    What a catalogue row leaves out keeps its old value. New items are numbered on from the highest number, first those
    met in events by time of their first event, then the others by id; numbers are never used again. An item is first seen at
    ``moment``, or earlier in an event; what the first catalogue lists beside events was there when these began.
    """
    met = events.where(F.col("item_id").isNotNull()).groupBy("item_id").agg(F.min("event_time").alias("first_event"))
    named = met.join(catalogue.withColumn("listed", F.lit(True)), on="item_id", how="full_outer")
    old = items.select("item_id", "item_idx", "first_seen", *(F.col(name).alias(f"old_{name}") for name in DESCRIBED))
    known = named.join(old, on="item_id", how="left")
    known = known.where(F.col("item_idx").isNull() | F.col("listed"))
    highest = items.agg(F.coalesce(F.max("item_idx"), F.lit(0)).alias("highest"))
    begun = met.agg(F.min("first_event").alias("begun"))
    order = Window.partitionBy(F.col("item_idx").isNull()).orderBy(F.col("first_event").asc_nulls_last(), "item_id")
    facts = known.crossJoin(F.broadcast(highest)).crossJoin(F.broadcast(begun))
    numbered = facts.withColumn("number", F.row_number().over(order))
    values = {name: F.coalesce(name, f"old_{name}") for name in DESCRIBED}
    values["available"] = F.coalesce(values["available"], F.lit(True))
    values["item_idx"] = F.coalesce("item_idx", F.col("highest") + F.col("number"))
    there = F.coalesce("first_event", F.when(F.col("highest") == 0, F.col("begun")))
    values["first_seen"] = F.coalesce("first_seen", F.least(there, F.lit(moment)))
    return numbered.withColumns(values).select(schemas.columns("items"))


def unlisted(items: DataFrame, events: DataFrame) -> DataFrame:
    """The events with an item that has no row yet."""
    return events.where(F.col("item_id").isNotNull()).join(items, on="item_id", how="left_anti")


CHANGED = " OR ".join(f"NOT (new.{name} <=> old.{name})" for name in DESCRIBED)
"""When a merge needs to touch an item that is there already."""
