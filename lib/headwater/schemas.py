"""The columns of every table, in the order they are written. A step whose result is written selects in this order.

Types are Spark DDL strings, so this module needs neither Spark nor torch. ``KEYS`` holds each table's unique key,
``PARTITIONS`` its partition columns.
"""

from __future__ import annotations

from typing import Literal, get_args

EventType = Literal["view", "search", "click", "add_to_cart", "purchase", "rating", "impression"]
EVENT_TYPES: tuple[str, ...] = get_args(EventType)
"""The order is part of every trained model: an event type's index is its position here plus one; 0 is padding."""

STEP_TYPES = tuple(kind for kind in EVENT_TYPES if kind != "impression")
"""The types of events that a sequence holds."""

TABLES: dict[str, dict[str, str]] = {
    "events": {
        "event_id": "string",
        "user_id": "string",
        "item_id": "string",
        "event_type": "string",
        "event_time": "timestamp",
        "value": "double",
        "query": "string",
        "session_id": "string",
        "source": "string",
        "source_file": "string",
        "ingested_at": "timestamp",
        "event_date": "date",
    },
    "quarantine": {
        "raw": "string",
        "reason": "string",
        "source": "string",
        "source_file": "string",
        "ingested_at": "timestamp",
    },
    "ingest_files": {
        "path": "string",
        "source": "string",
        "format": "string",
        "size_bytes": "bigint",
        "modified_at": "timestamp",
        "batch": "bigint",
        "taken_at": "timestamp",
    },
    "items": {
        "item_id": "string",
        "item_idx": "int",
        "title": "string",
        "category": "string",
        "text": "string",
        "price": "double",
        "available": "boolean",
        "first_seen": "timestamp",
    },
    "sequences": {
        "user_id": "string",
        "item_idx": "array<int>",
        "event_type": "array<string>",
        "event_time": "array<timestamp>",
        "event_id": "array<string>",
        "value": "array<double>",
        "seen_items": "array<int>",
        "last_event_time": "timestamp",
        "updated_at": "timestamp",
    },
    "item_embeddings": {
        "model_version": "int",
        "item_idx": "int",
        "item_id": "string",
        "embedding": "array<float>",
    },
    "topn": {
        "user_id": "string",
        "rank": "int",
        "item_id": "string",
        "score": "double",
        "reason": "string",
        "strategy": "string",
        "model_version": "int",
        "history_time": "timestamp",
        "generated_at": "timestamp",
        "propensity": "double",
    },
    "topn_history": {
        "user_id": "string",
        "rank": "int",
        "item_id": "string",
        "score": "double",
        "reason": "string",
        "strategy": "string",
        "model_version": "int",
        "history_time": "timestamp",
        "generated_at": "timestamp",
        "propensity": "double",
    },
    "sections": {
        "user_id": "string",
        "section": "int",
        "rank": "int",
        "heading": "string",
        "item_id": "string",
        "score": "double",
        "reason": "string",
        "strategy": "string",
        "model_version": "int",
        "generated_at": "timestamp",
    },
    "feedback": {
        "event_id": "string",
        "user_id": "string",
        "item_id": "string",
        "event_type": "string",
        "event_time": "timestamp",
        "rank": "int",
        "model_version": "int",
        "propensity": "double",
        "reward": "double",
        "served_at": "timestamp",
        "collected_at": "timestamp",
    },
    "model_metrics": {
        "model_version": "int",
        "model": "string",
        "protocol": "string",
        "split": "string",
        "segment": "string",
        "metric": "string",
        "k": "int",
        "value": "double",
        "users": "bigint",
        "beside_version": "int",
        "evaluated_at": "timestamp",
    },
    "promotions": {
        "decided_at": "timestamp",
        "action": "string",
        "challenger_version": "int",
        "champion_version": "int",
        "decision": "string",
        "reason": "string",
        "details": "string",
    },
}

COMMENTS: dict[str, str] = {
    "event_id": "given by the source, otherwise a hash of the content",
    "user_id": "a pseudonym if privacy.key_file is set",
    "item_id": "as the shop calls the item",
    "item_idx": "the item's number in models: dense from 1, never reused",
    "event_type": f"one of {', '.join(EVENT_TYPES)}",
    "event_time": "when it happened, UTC",
    "event_date": "the date of event_time, UTC; the partition",
    "value": "what the source says: a quantity, an amount, a rating",
    "query": "the words of a search",
    "session_id": "as the source calls the visit",
    "source": "name of the source in ingest.sources, or its format",
    "source_file": "file below the landing folder, or topic, partition and offset",
    "ingested_at": "when the batch began, UTC",
    "raw": "the line as it was read; hashed if privacy.key_file is set",
    "reason": "a sentence for people: why this item, or why this decision",
    "quarantine.reason": "why the line was refused, a short code",
    "path": "file below the landing folder, or range of a topic's messages",
    "format": "format of the source",
    "size_bytes": "size of the file; null for messages",
    "modified_at": "when the file was last modified, UTC",
    "batch": "number of the batch that ingested it",
    "taken_at": "when that batch began, UTC",
    "title": "from the catalogue",
    "category": "from the catalogue; may name several (topn.category_separator)",
    "text": "description from the catalogue",
    "price": "from the catalogue; null if it was not an amount",
    "available": "whether the item may be listed",
    "first_seen": "when it was published, if the catalogue says so; else its first ingest, or first event if earlier, UTC",
    "seen_items": "every item_idx that the user ever had, ascending",
    "last_event_time": "the newest event of the sequence, UTC",
    "updated_at": "when the row was written, UTC",
    "model_version": "version in MLflow's registry; 0 for a baseline",
    "embedding": "the item's vector in this model version",
    "rank": "place in the list, from 1",
    "score": "falls along a list, means nothing across users",
    "strategy": "what produced the row: the model, a fallback, explore, …",
    "history_time": "the newest event that the list takes into account, UTC",
    "generated_at": "when the list was ready to be published, UTC",
    "propensity": "probability of this item at this rank; null if nothing was drawn",
    "section": "number of the further list, from 1",
    "heading": "what stands above the further list",
    "reward": "what the action is worth (feedback.rewards)",
    "served_at": "generated_at of the list that the action answers",
    "collected_at": "when the feedback was collected, UTC",
    "model": "name of the model or baseline",
    "protocol": "how the held-out events were chosen",
    "split": "validation or test",
    "segment": "all, or a group of users",
    "metric": "ndcg, hit_rate, mrr, coverage, novelty, diversity, …",
    "k": "length of the measured lists",
    "users": "how many users were measured",
    "beside_version": "for a baseline: the model version that it was measured beside",
    "evaluated_at": "when it was measured, UTC",
    "decided_at": "when the gate decided, UTC",
    "action": "promote or rollback",
    "challenger_version": "version that was judged",
    "champion_version": "version that it was judged against",
    "decision": "promoted or refused",
    "details": "the figures behind the decision, JSON",
}
"""What each column means, for people who browse the tables; ``table.column`` where it means something else in one table."""

KEYS: dict[str, tuple[str, ...]] = {
    "events": ("event_id",),
    "ingest_files": ("path",),
    "items": ("item_id",),
    "sequences": ("user_id",),
    "item_embeddings": ("model_version", "item_idx"),
    "topn": ("user_id", "rank"),
    "topn_history": ("user_id", "rank", "generated_at"),
    "sections": ("user_id", "section", "rank"),
    "feedback": ("event_id",),
}

PARTITIONS: dict[str, tuple[str, ...]] = {"events": ("event_date",)}

REPLACED = ("sequences", "topn", "sections")
"""Tables in which a round replaces the rows of some users, in whatever files they are."""

CHANGE_FEED = ("events", "sequences", "topn")
"""Tables whose changes a later job follows by version."""

PERSONAL = ("events", "sequences", "topn", "topn_history", "sections", "feedback")
"""Tables with a ``user_id``; ``quarantine`` holds raw lines and is searched as text."""

IDENTIFYING_COLUMNS = ("user_id", "event_id", "session_id", "raw", "query")
"""Columns that can name a person. Delta's log holds no minimum and maximum of them, because the log outlives the rows."""


def ddl(table: str) -> str:
    """The Spark DDL of a table, with columns in the order they are written."""
    return ", ".join(f"{name} {kind}" for name, kind in TABLES[table].items())


def comment(table: str, column: str) -> str:
    """What a column of a table means."""
    return COMMENTS.get(f"{table}.{column}") or COMMENTS[column]


def stats_columns(table: str) -> list[str]:
    """The columns whose minimum and maximum per file Delta keeps in its log, for file skipping."""
    without = {*IDENTIFYING_COLUMNS, *PARTITIONS.get(table, ())}
    plain = [name for name, kind in TABLES[table].items() if not kind.startswith(("array", "boolean"))]
    return [name for name in plain if name not in without]


def columns(table: str) -> list[str]:
    """The column names of a table, in the order they are written."""
    return list(TABLES[table])
