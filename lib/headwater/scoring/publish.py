"""Rows of ``topn`` and the changes between what stands and what is new."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headwater import schemas
from headwater.scoring import reasons

PUBLISHED = ("insert", "update_postimage")
"""Change types of the feed that show a row to somebody."""


def topn_rows(lists: DataFrame, sequences: DataFrame, model_version: int, now: datetime) -> DataFrame:
    """Lists with titles as rows of ``topn``, in its column order; ``history_time`` is the last event they know of."""
    known = sequences.select("user_id", F.col("last_event_time").alias("history_time"))
    return (
        lists.join(known, "user_id", how="inner")
        .withColumn("because", reasons.type_name(F.col("because_type")))
        .withColumn("reason", reasons.reason(F.col("because"), F.col("because_title")))
        .withColumn("model_version", F.lit(model_version))
        .withColumn("generated_at", F.lit(now))
        .withColumn("propensity", F.lit(None).cast("double"))
        .select(schemas.columns("topn"))
    )


def with_withdrawn(rows: DataFrame, standing: DataFrame) -> DataFrame:
    """Adds, for lists that got shorter, the ranks to delete: rows without an item."""
    gone = standing.join(rows.select("user_id").distinct(), "user_id", how="left_semi").join(
        rows.select("user_id", "rank"), ["user_id", "rank"], how="left_anti"
    )
    return rows.unionByName(gone.withColumn("item_id", F.lit(None).cast("string")))


def changed_users(rows: DataFrame, standing: DataFrame) -> DataFrame:
    """The users of ``rows`` whose items or their order differ from the standing list, or who had none."""
    return (
        _orders(rows, "new")
        .join(_orders(standing, "old"), "user_id", how="left")
        .where(~F.col("new").eqNullSafe(F.col("old")))
    )


def _orders(rows: DataFrame, name: str) -> DataFrame:
    ordered = F.array_sort(F.collect_list(F.struct("rank", "item_id")))
    return rows.groupBy("user_id").agg(ordered.alias(name))


def unfit(rows: DataFrame) -> DataFrame:
    """Rows that must never be published: no item, no finite score, an item or a rank twice, a gap in the ranks."""
    lists = rows.groupBy("user_id").agg(
        F.count("*").alias("rows"),
        F.countDistinct("item_id").alias("items"),
        F.countDistinct("rank").alias("ranks"),
        F.max("rank").alias("last"),
        F.count_if(F.col("score").isNull() | F.isnan("score") | (F.abs("score") == float("inf"))).alias("not_finite"),
    )
    whole = (F.col("rows") == F.col("items")) & (F.col("rows") == F.col("ranks")) & (F.col("rows") == F.col("last"))
    return lists.where(~whole | (F.col("not_finite") > 0))
