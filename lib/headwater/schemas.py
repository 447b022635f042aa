"""The columns of every table, in the order they are written. A step whose result is written selects in this order.

Types are Spark DDL strings, so this module needs neither Spark nor torch. ``KEYS`` holds each table's unique key,
``PARTITIONS`` its partition columns.
"""

from __future__ import annotations

from typing import Literal, get_args

EventType = Literal["view", "search", "click", "add_to_cart", "purchase", "rating", "impression"]
EVENT_TYPES: tuple[str, ...] = get_args(EventType)
"""The order is part of every trained model: an event type's index is its position here plus one; 0 is padding."""

VERBS = {
    "view": "viewed",
    "search": "searched for",
    "click": "clicked",
    "add_to_cart": "put in your cart",
    "purchase": "bought",
    "rating": "rated",
}
"""The verb of each event type, for use after "because you"."""

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

NAMES_A_PERSON = ("user_id", "event_id", "session_id", "raw", "query")
"""Columns that can name a person. Delta's log holds no minimum and maximum of them, because the log outlives the rows."""


def ddl(table: str) -> str:
    """The Spark DDL of a table, with columns in the order they are written."""
    return ", ".join(f"{name} {kind}" for name, kind in TABLES[table].items())


def stats_columns(table: str) -> list[str]:
    """The columns whose minimum and maximum per file Delta keeps in its log, for file skipping."""
    without = {*NAMES_A_PERSON, *PARTITIONS.get(table, ())}
    plain = [name for name, kind in TABLES[table].items() if not kind.startswith(("array", "boolean"))]
    return [name for name in plain if name not in without]


def columns(table: str) -> list[str]:
    """The column names of a table, in the order they are written."""
    return list(TABLES[table])
