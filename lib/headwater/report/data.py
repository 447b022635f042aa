"""The data of the report, as small Python values: every function runs a few queries in Spark and collects counts, or the
rows of a few users, never a table.

Times are epoch seconds and durations are seconds, so no local time zone can interfere. A missing table raises TableError,
whose message names the job to run.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from headwater import schemas
from headwater.clock import DAY
from headwater.popularity import seconds
from headwater.report.result import UNREADABLE, Result
from headwater.tables import Warehouse, readers
from headwater.tables.log import UPKEEP
from headwater.tables.warehouse import WRITER

MINUTE, HOUR = 60, 3_600
AGES = (
    (MINUTE, "0–1 min"), (10 * MINUTE, "1–10 min"), (HOUR, "10–60 min"), (6 * HOUR, "1–6 hours"), (DAY, "6–24 hours"),
    (7 * DAY, "1–7 days"), (30 * DAY, "7–30 days"), (float("inf"), "30+ days"),
)  # fmt: skip
"""Upper bounds in seconds and their labels. A list's age is the time from the newest event it knew of to its making."""
INGEST_COUNTS = ("rows_in", "rows_events", "rows_quarantined", "rows_duplicate", "rows_ignored")
METRICS = ("ndcg", "hit_rate", "mrr", "coverage", "novelty", "diversity")
"""The metrics of held-out users; ``model_metrics`` may hold others."""
MAX_PLACES = 20
"""The number of places of a person's list that the page shows."""


@dataclass(frozen=True)
class TableState:
    """``version`` is None if there is no table, ``rows`` also if it cannot be read; ``problem`` says why it cannot.
    ``unread``: the commits that each job has yet to read, None where that is the whole table."""

    name: str
    rows: int | None = None
    version: int | None = None
    changed_at: float | None = None
    job: str | None = None
    problem: str = ""
    unread: dict[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Freshness:
    users: int
    """Users with a sequence."""
    up_to_date: int
    """… whose list reflects their last event."""
    behind: int
    """… with events newer than their list."""
    without_list: int
    """… with no list yet."""
    newest_list: float | None
    ages: list[tuple[str, int]]
    """Lists by age, in the order of ``AGES``."""
    wait_median: float | None
    """Seconds from a sequence's update to the list made of it."""
    wait_p95: float | None
    """… the 95th percentile."""


@dataclass(frozen=True)
class Person:
    user: str
    events: list[dict[str, Any]]
    items: list[dict[str, Any]]
    sections: list[tuple[str, list[str]]]
    """Headings and the titles below them, in the order shown."""


def table_states(warehouse: Warehouse) -> list[TableState]:
    """The state of every table in ``schemas.TABLES``: rows, version, last change of rows, and the job that made the change."""
    with ThreadPoolExecutor(4) as pool:  # each table waits for a few small Spark jobs in sequence
        return list(pool.map(lambda table: _state(warehouse, table), schemas.TABLES))


def _state(warehouse: Warehouse, table: str) -> TableState:
    if not warehouse.exists(table):
        return TableState(table)
    newest, *older = islice(warehouse.commits(table), 20)
    made = next((commit for commit in (newest, *older) if commit.operation not in UPKEEP), newest)
    rows = Result.of(lambda tables: tables.read(table).count(), warehouse)
    return TableState(table, rows.value, newest.version, made.at, made.by, rows.problem, _unread(warehouse, table))


def _unread(warehouse: Warehouse, table: str) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for reader in readers.READERS:
        if reader.source != table:
            continue
        progress = readers.progress(warehouse, reader)
        if progress.has_all_to_read:
            found[reader.job] = None
        elif progress.unread:
            found[reader.job] = len(progress.unread)
    return found


def ingested(warehouse: Warehouse) -> dict[str, int]:
    """Lines ingested over all batches and their verdicts, by the last note of ingest."""
    note = warehouse.last_note("events", WRITER["events"]) or {}
    return {name: note.get("so_far", {}).get(name, 0) for name in INGEST_COUNTS}


def counts_by(warehouse: Warehouse, table: str, column: str, most: int = 12) -> list[tuple[str, int]]:
    """The values of a column that has few, and their row counts, the most frequent first; those beyond the first ``most`` are one
    count."""
    rows = warehouse.read(table).groupBy(column).count().orderBy(F.desc("count"), column).collect()
    rest = sum(count for _, count in rows[most:])
    return [(value or "–", count) for value, count in rows[:most]] + ([("all others", rest)] if rest else [])


def freshness(warehouse: Warehouse) -> Freshness:
    """How many lists reflect their user's last event, and how long that took: until the first list that did, because a full run
    makes every list anew."""
    lists = warehouse.read("topn").where(F.col("rank") == 1).select("user_id", "history_time", "generated_at")
    published = warehouse.read("topn_history").where(F.col("rank") == 1)
    first = published.groupBy("user_id", "history_time").agg(F.min("generated_at").alias("first_made"))
    both = warehouse.read("sequences").select("user_id", "last_event_time", "updated_at").join(lists, "user_id", "left")
    both = both.join(first, ["user_id", "history_time"], "left")
    has_list = F.col("generated_at").isNotNull()
    is_behind = has_list & (F.col("history_time") < F.col("last_event_time"))
    waited = seconds("first_made") - seconds("updated_at")
    waited = F.when(has_list & ~is_behind & (waited >= 0), waited)  # below 0 if all sequences were rebuilt since
    facts = both.agg(
        F.count("*").alias("users"),
        F.count_if(has_list).alias("with_list"),
        F.count_if(is_behind).alias("behind"),
        F.percentile(waited, F.lit(0.5)).alias("median"),
        F.percentile(waited, F.lit(0.95)).alias("p95"),
    ).first()
    age = seconds("generated_at") - seconds("history_time")
    bucket: Column = F.when(age < AGES[0][0], 0)
    for place, (bound, _) in enumerate(AGES[1:-1], start=1):
        bucket = bucket.when(age < bound, place)
    grouped = lists.groupBy(bucket.otherwise(len(AGES) - 1).alias("bucket"))
    found = grouped.agg(F.count("*").alias("lists"), F.max(seconds("generated_at")).alias("newest")).collect()
    ages = {row["bucket"]: row["lists"] for row in found}
    assert facts is not None, "an aggregate has one row"
    return Freshness(
        users=facts["users"],
        up_to_date=facts["with_list"] - facts["behind"],
        behind=facts["behind"],
        without_list=facts["users"] - facts["with_list"],
        newest_list=max((row["newest"] for row in found), default=None),
        ages=[(label, ages.get(place, 0)) for place, (_, label) in enumerate(AGES)],
        wait_median=facts["median"],
        wait_p95=facts["p95"],
    )


def quality(warehouse: Warehouse, about: int | None = None) -> list[dict[str, Any]]:
    """The newest measurements in ``model_metrics`` of the ten newest versions, of the version that the page is ``about``,
    however old, and of their baselines.

    ``version`` is the model's version; for a baseline, whose ``model_version`` is 0, it is that of the model measured with it.
    ``k`` is 10 if that was measured, also of lists as served, which may be shorter; else the largest. The split is test if there
    is one, else validation.
    """
    rows = warehouse.read("model_metrics").where(F.col("metric").isin(*METRICS))
    of_model = F.when(F.col("model_version") > 0, F.col("model_version"))
    rows = rows.withColumn("version", F.coalesce(of_model, "beside_version", F.lit(0)))
    key = ("version", "model", "split", "segment", "metric", "k")
    newest = F.row_number().over(Window.partitionBy(*key).orderBy(F.desc("evaluated_at")))
    place = F.dense_rank().over(Window.orderBy(F.desc("version")))
    has_served = F.max(F.col("model") == "as_served").over(Window.partitionBy("version", "split", "k"))
    best_first = (F.col("split") != "test", F.desc("has_served"), F.col("k") != 10, F.desc("k"))
    wanted = F.dense_rank().over(Window.partitionBy("version").orderBy(*best_first))
    one = rows.withColumn("turn", newest).where(F.col("turn") == 1)
    one = one.withColumn("has_served", has_served).withColumn("wanted", wanted)
    first = F.col("version").eqNullSafe(F.lit(about))
    one = one.where(F.col("wanted") == 1).withColumn("place", place).where(first | (F.col("place") <= 10))
    ordered = one.orderBy(F.desc(first), F.desc("version"), *key[1:])
    found = ordered.select(*key, "model_version", "protocol", "value", "users").limit(2_000)
    return [row.asDict() for row in found.collect()]


def promotions(warehouse: Warehouse) -> list[dict[str, Any]]:
    """The last twelve decisions of the gate, the newest first; a first champion has needed none."""
    if not warehouse.exists("promotions"):
        return []
    rows = warehouse.read("promotions").orderBy(F.desc("decided_at")).limit(12)
    columns = ("action", "challenger_version", "champion_version", "decision", "reason")
    return [row.asDict() for row in rows.select(seconds("decided_at").alias("at"), *columns).collect()]


def feedback_by_rank(warehouse: Warehouse) -> list[dict[str, Any]]:
    """For every rank: the rows published at it, the actions on them, and the reward of these actions."""
    shown = warehouse.read("topn_history").groupBy("rank").agg(F.count("*").alias("shown"))
    acted = (
        warehouse.read("feedback")
        .groupBy("rank")
        .agg(
            F.count("*").alias("actions"),
            F.countDistinct("user_id", "item_id", "served_at").alias("rows_acted_on"),
            F.sum("reward").alias("reward"),
        )
    )
    zero: dict[str, bool | float | int | str] = {"actions": 0, "rows_acted_on": 0, "reward": 0.0}
    joined = shown.join(acted, "rank", how="left").fillna(zero).orderBy("rank")
    return [row.asDict() for row in joined.collect()]


def feedback_by_type(warehouse: Warehouse) -> list[dict[str, Any]]:
    """Actions and reward by event type, the most frequent first."""
    rows = (
        warehouse.read("feedback")
        .groupBy("event_type")
        .agg(F.count("*").alias("actions"), F.sum("reward").alias("reward"))
    )
    return [row.asDict() for row in rows.orderBy(F.desc("actions")).collect()]


def variety(warehouse: Warehouse) -> dict[str, Any]:
    """The share of the catalogue in the current lists, the share of places that the most shown items take, and strategies."""
    lists, items = warehouse.read("topn"), warehouse.read("items")
    shown = lists.groupBy("item_id").agg(F.count("*").alias("slots"))
    total = shown.agg(F.count("*").alias("items"), F.sum("slots").alias("slots")).first()
    titles = items.select("item_id", F.coalesce("title", "item_id").alias("title"))
    top = shown.orderBy(F.desc("slots"), "item_id").limit(10).join(titles, "item_id", how="left")
    strategies = lists.groupBy("strategy").count().orderBy(F.desc("count")).limit(8)
    assert total is not None, "an aggregate has one row"
    return {
        "items_shown": total["items"],
        "items": items.count(),
        "slots": total["slots"] or 0,
        "top": [
            (row["title"] or row["item_id"], row["slots"]) for row in top.orderBy(F.desc("slots"), "item_id").collect()
        ],
        "strategies": [(row["strategy"] or "–", row["count"]) for row in strategies.collect()],
    }


def headline(warehouse: Warehouse) -> dict[str, int | None]:
    """Users with lists, items, the model version behind most lists, and list length; None if a table is missing or cannot be
    read."""
    found: dict[str, int | None] = {"users": None, "items": None, "served_version": None, "list_length": None}
    with suppress(*UNREADABLE):
        row = (
            warehouse.read("topn")
            .agg(
                F.count_if(F.col("rank") == 1).alias("users"),
                F.mode("model_version").alias("served_version"),
                F.max("rank").alias("list_length"),
            )
            .first()
        )
        found.update(row.asDict() if row else {})
    with suppress(*UNREADABLE):
        found["items"] = warehouse.read("items").count()
    return found


def people(warehouse: Warehouse, count: int = 5, events: int = 8) -> list[Person]:
    """The last events and the list of a few users, the same ones each time, one of them with little history."""
    lists, titles = warehouse.read("topn"), _titles(warehouse)
    known = warehouse.read("sequences").join(
        lists.where(F.col("rank") == 1).select("user_id"), "user_id", how="left_semi"
    )
    size = F.size("item_idx")
    by_chance = F.xxhash64("user_id")
    few = known.where(size <= 2).orderBy(by_chance).limit(1)
    chosen = known.where(size > 2).orderBy(by_chance).limit(count - 1).unionByName(few)
    chosen = chosen.select("user_id", "item_idx", "event_type", "event_time").persist()
    try:
        order = [row["user_id"] for row in chosen.orderBy(F.desc(size), "user_id").select("user_id").collect()]
        steps = _last_steps(chosen, events).join(titles, "item_idx", how="left").orderBy("user_id", F.desc("step"))
        steps = steps.select("user_id", "event_type", seconds("event_time").alias("at"), "title")
        happened = [row.asDict() for row in steps.collect()]
        rows = lists.join(F.broadcast(chosen.select("user_id")), "user_id", how="left_semi")
        rows = (
            rows.join(titles.drop("item_idx"), "item_id", how="left")
            .where(F.col("rank") <= MAX_PLACES)
            .orderBy("user_id", "rank")
        )
        rows = rows.select("user_id", "rank", F.coalesce("title", "item_id").alias("title"), "reason", "strategy")
        shown = [row.asDict() for row in rows.collect()]
        sections = _sections(warehouse, chosen, titles) if warehouse.exists("sections") else {}
    finally:
        chosen.unpersist()
    return [
        Person(
            user,
            [row for row in happened if row["user_id"] == user],
            [row for row in shown if row["user_id"] == user],
            sections.get(user, []),
        )
        for user in order
    ]


def _sections(
    warehouse: Warehouse, chosen: DataFrame, titles: DataFrame, most: int = 5
) -> dict[str, list[tuple[str, list[str]]]]:
    """The first items of each section of a few users."""
    rows = warehouse.read("sections").where(F.col("rank") <= most)
    rows = rows.join(F.broadcast(chosen.select("user_id")), "user_id", how="left_semi")
    rows = rows.join(titles.drop("item_idx"), "item_id", how="left").orderBy("user_id", "section", "rank")
    found: dict[str, dict[tuple[int, str], list[str]]] = {}
    for row in rows.select("user_id", "section", "heading", F.coalesce("title", "item_id").alias("title")).collect():
        found.setdefault(row["user_id"], {}).setdefault((row["section"], row["heading"]), []).append(row["title"])
    return {user: [(heading, below) for (_, heading), below in each.items()] for user, each in found.items()}


def _last_steps(sequences: DataFrame, count: int) -> DataFrame:
    """The last steps of each sequence, one per row; ``step`` increases with time."""
    zipped = F.arrays_zip("item_idx", "event_type", "event_time")
    last = F.slice(zipped, F.greatest(F.lit(1), F.size(zipped) - count + 1), F.lit(count))
    return sequences.select("user_id", F.posexplode(last).alias("step", "at")).select("user_id", "step", "at.*")


def _titles(warehouse: Warehouse) -> DataFrame:
    items = warehouse.read("items")
    return items.select("item_id", "item_idx", F.coalesce("title", "item_id").alias("title"))
