"""The data of a fine-tune: the users who gave feedback, and a sample of the others against forgetting."""

from __future__ import annotations

from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def collected_after(feedback: DataFrame, moment: datetime | None) -> DataFrame:
    """Feedback collected after ``moment``; all of it if ``moment`` is None."""
    return feedback if moment is None else feedback.where(F.col("collected_at") > F.lit(moment))


def unknown_to_model(
    feedback: DataFrame, events: DataFrame, train_until: datetime | None, ingested_until: datetime | None
) -> DataFrame:
    """Feedback on which a model was not trained: given at ``train_until``, the end of its training data, or later; or earlier,
    but its event came late, ingested after ``ingested_until``, the newest ``ingested_at`` that the training saw. All of it
    without ``train_until``; none that came late without ``ingested_until``."""
    if train_until is None:
        return feedback
    later = feedback.where(F.col("event_time") >= F.lit(train_until))
    if ingested_until is None:
        return later
    came_late = events.where(
        (F.col("event_time") < F.lit(train_until)) & (F.col("ingested_at") > F.lit(ingested_until))
    )
    earlier = feedback.where(F.col("event_time") < F.lit(train_until))
    return later.unionByName(earlier.join(came_late.select("event_id"), "event_id", how="left_semi"))


def count_and_newest(feedback: DataFrame) -> tuple[int, datetime]:
    """The number of rows, and the newest ``collected_at``; 1970 if there are no rows."""
    row = feedback.agg(F.count("*"), F.coalesce(F.max(F.unix_micros("collected_at")), F.lit(0))).first()
    assert row is not None, "an aggregate has one row"
    return row[0], datetime.fromtimestamp(row[1] / 1e6, UTC)


def holdout_cut(feedback: DataFrame, holdout_fraction: float) -> datetime:
    """The time from which events are held out for the gate: the exact quantile of feedback time that leaves the newest share.

    ``feedback`` has at least one row. Rows that share the cut time are all held out, unless there is no earlier row.
    """
    row = feedback.select(
        F.percentile(F.unix_micros("event_time"), F.lit(1 - holdout_fraction)).alias("cut"),
        F.min(F.unix_micros("event_time")).alias("first"),
    ).first()
    assert row is not None, "an aggregate has one row"
    cut = int(row["cut"]) + (1 if row["cut"] <= row["first"] else 0)
    return datetime.fromtimestamp(cut / 1e6, UTC)


def with_replay(sequences: DataFrame, feedback: DataFrame, replay_fraction: float, seed: int) -> DataFrame:
    """Sequences of users with feedback, with ``rewards`` (a map of event id to reward), and of a share of all other users, with
    null ``rewards``.

    The sample is drawn by a hash of user and seed, so it is the same every time.
    """
    rewards = feedback.groupBy("user_id").agg(
        F.map_from_entries(F.collect_list(F.struct("event_id", "reward"))).alias("rewards")
    )
    share = F.pmod(F.xxhash64("user_id", F.lit(seed)), F.lit(1_000_000)) < int(replay_fraction * 1_000_000)
    joined = sequences.join(rewards, "user_id", how="left")
    return joined.where(F.col("rewards").isNotNull() | share)
