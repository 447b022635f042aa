"""What a fine-tune learns from: the users who gave feedback, and a sample of the others against forgetting."""

from __future__ import annotations

from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def collected_after(feedback: DataFrame, moment: datetime | None) -> DataFrame:
    """Feedback that was collected after a moment; all of it where there is none."""
    return feedback if moment is None else feedback.where(F.col("collected_at") > F.lit(moment))


def given_from(feedback: DataFrame, moment: datetime | None) -> DataFrame:
    """Feedback that was given at a moment or later; all of it where there is none."""
    return feedback if moment is None else feedback.where(F.col("event_time") >= F.lit(moment))


def count_and_newest(feedback: DataFrame) -> tuple[int, datetime]:
    """How many rows there are, and when the newest was collected; 1970 where there is none."""
    row = feedback.agg(F.count("*"), F.coalesce(F.max(F.unix_micros("collected_at")), F.lit(0))).first()
    assert row is not None, "an aggregate has one row"
    return row[0], datetime.fromtimestamp(row[1] / 1e6, UTC)


def holdout_cut(feedback: DataFrame, holdout_fraction: float) -> datetime:
    """The moment from which on events are held out: the exact quantile of feedback time, so that the newest share gates.

    ``feedback`` has at least one row. An instant that many rows share is held out whole, unless nothing came before.
    """
    row = feedback.select(
        F.percentile(F.unix_micros("event_time"), F.lit(1 - holdout_fraction)).alias("cut"),
        F.min(F.unix_micros("event_time")).alias("first"),
    ).first()
    assert row is not None, "an aggregate has one row"
    cut = int(row["cut"]) + (1 if row["cut"] <= row["first"] else 0)
    return datetime.fromtimestamp(cut / 1e6, UTC)


def with_replay(sequences: DataFrame, feedback: DataFrame, replay_fraction: float, seed: int) -> DataFrame:
    """Sequences of users with feedback, with ``rewards`` (map of event id to reward), and a share of all others without.

    The sample is drawn by a hash of user and seed: the same one every time.
    """
    rewards = feedback.groupBy("user_id").agg(
        F.map_from_entries(F.collect_list(F.struct("event_id", "reward"))).alias("rewards")
    )
    share = F.pmod(F.xxhash64("user_id", F.lit(seed)), F.lit(1_000_000)) < int(replay_fraction * 1_000_000)
    joined = sequences.join(rewards, "user_id", how="left")
    return joined.where(F.col("rewards").isNotNull() | share)
