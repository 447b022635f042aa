"""The section ``ingest``: where lines come from, the names of their columns, and the limits beyond which events are refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from headwater.config.sections import Hours, Positive, Section
from headwater.schemas import EVENT_TYPES, EventType

EVENT_FIELDS = ("user_id", "item_id", "event_type", "timestamp", "event_id", "value", "query", "session_id")
CATALOG_FIELDS = ("item_id", "title", "category", "text", "price", "available", "published")
MAPPED_FORMATS = ("json", "csv", "kafka")
"""The formats in which a source may use its own names for columns and event types, and its own time format."""
FORMATS_OF_KEY = {
    "fields": (*MAPPED_FORMATS, "catalog"),
    "constants": (*MAPPED_FORMATS, "catalog"),
    "event_types": MAPPED_FORMATS,
    "time_zone": (*MAPPED_FORMATS, "catalog"),
    "time_format": (*MAPPED_FORMATS, "catalog"),
    "header": ("csv",),
    "delimiter": ("csv", "catalog"),
    "brokers": ("kafka",),
    "topic": ("kafka",),
    "starting": ("kafka",),
    "max_messages": ("kafka",),
    "client_file": ("kafka",),
}
"""The formats that use each key; with any other format the key has no effect and is refused."""


class Source(Section):
    format: Literal["json", "csv", "combined_log", "catalog", "kafka"]
    glob: str = ""
    name: str = ""
    fields: dict[str, str] = {}
    constants: dict[str, str | float | bool] = {}
    event_types: dict[str, EventType | None] = {}
    time_zone: str = "UTC"
    time_format: str = ""
    header: bool | list[str] = True
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    brokers: str = ""
    topic: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,249}$")
    starting: Literal["earliest", "latest"] = "earliest"
    max_messages: Positive = 100_000
    client_file: str = ""

    @property
    def origin(self) -> str:
        """The origin of its lines, for messages to people."""
        return f"topic {self.topic}" if self.format == "kafka" else self.glob

    @model_validator(mode="after")
    def _is_consistent(self) -> Source:
        if self.format == "kafka":
            if missing := [key for key in ("brokers", "topic") if not getattr(self, key)]:
                raise ValueError(f"format kafka needs {' and '.join(missing)}")
            if self.glob:
                raise ValueError("format kafka takes a topic, not a glob")
        elif not self.glob:
            raise ValueError("glob is missing")
        keys = type(self).model_fields
        idle = [
            key
            for key, of in FORMATS_OF_KEY.items()
            if self.format not in of and getattr(self, key) != keys[key].default
        ]
        if idle:
            raise ValueError(f"{' and '.join(idle)} cannot be used with format {self.format}; leave that out")
        if self.glob.startswith("/") or ".." in Path(self.glob).parts:
            raise ValueError(f"glob {self.glob!r} must stay inside paths.landing")
        known = CATALOG_FIELDS if self.format == "catalog" else EVENT_FIELDS
        for key in (*self.fields, *self.constants):
            if key not in known:
                raise ValueError(f"{key!r} is not a known field; the fields are {', '.join(known)}")
        constant = self.constants.get("event_type")
        if constant is not None and constant not in EVENT_TYPES:
            raise ValueError(f"constants.event_type {constant!r} is not one of {', '.join(EVENT_TYPES)}")
        return self

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, value: str) -> str:
        if value in '"\\\r\n':
            raise ValueError(f"{value!r} cannot separate columns; use a character such as ',', ';' or a tab")
        return value

    @field_validator("header")
    @classmethod
    def _names_each_column_once(cls, value: bool | list[str]) -> bool | list[str]:
        names = [name.strip() for name in value] if isinstance(value, list) else []
        if "" in names:
            raise ValueError(f"column {1 + names.index('')} has no name")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"column {twice[0]!r} is named twice")
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except Exception:
            raise ValueError(f"time zone {value!r} is unknown; use a name such as Europe/London") from None
        return value


class UrlRule(Section):
    event_type: EventType
    method: str = "GET"
    path: str

    @field_validator("path")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            groups = set(re.compile(value).groupindex)
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression: {error}") from None
        if groups - {"item_id", "query", "user_id"}:
            raise ValueError(f"{value!r} names groups other than item_id, query and user_id")
        return value

    @model_validator(mode="after")
    def _names_an_item(self) -> UrlRule:
        if self.event_type != "search" and "(?P<item_id>" not in self.path:
            raise ValueError(f"a {self.event_type} needs an item: name a group (?P<item_id>…) in {self.path!r}")
        return self


def _default_sources() -> list[Source]:
    return [
        Source(format="json", glob="api/*.json*"),
        Source(format="csv", glob="csv/*.csv*"),
        Source(format="combined_log", glob="web/*.log*"),
        Source(format="catalog", glob="catalog/*"),
    ]


class Ingest(Section):
    sources: list[Source] = Field(default_factory=_default_sources, min_length=1)
    url_rules: list[UrlRule] = []
    max_line_bytes: Positive = 1_000_000
    max_value: Annotated[float, Field(gt=0)] = 1_000_000.0
    max_id_length: Positive = 512
    earliest: datetime = datetime(1995, 1, 1, tzinfo=UTC)
    future_hours: Hours = 24.0
    same_id_days: Annotated[int, Field(ge=0)] | None = None
    bot_agents: bool = True
    bot_events_per_minute: Positive = 120
    bot_regular_events: Positive = 60

    @field_validator("earliest", mode="before")
    @classmethod
    def _is_a_moment(cls, value: Any) -> datetime:
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        except (TypeError, ValueError):
            raise ValueError("not an ISO date such as 1995-01-01") from None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    @field_validator("sources")
    @classmethod
    def _read_a_topic_once(cls, value: list[Source]) -> list[Source]:
        topics = [source.topic for source in value if source.format == "kafka"]
        if twice := [topic for topic in topics if topics.count(topic) > 1]:
            raise ValueError(
                f"topic {twice[0]!r} is read by two sources; the ledger knows messages by topic, so only one may read it"
            )
        return value
