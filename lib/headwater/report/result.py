"""The content of a section: a value from the tables, or a sentence in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from headwater.errors import TableError
from headwater.report.markup import missing
from headwater.tables import Warehouse
from headwater.text import first_line

T = TypeVar("T")

UNREADABLE = (TableError, PySparkException, Py4JJavaError)
"""What a query raises for a missing table, and for one of which a file is missing or damaged."""


@dataclass(frozen=True)
class Result:
    """A value, or in ``problem`` a sentence that says why there is none."""

    value: Any = None
    problem: str = ""

    @classmethod
    def of(cls, ask: Callable[[Warehouse], T], warehouse: Warehouse) -> Result:
        try:
            return cls(ask(warehouse))
        except TableError as error:
            return cls(problem=f"Nothing to show: {error}.")
        except UNREADABLE as error:
            reason = first_line(getattr(error, "java_exception", error))
            return cls(problem=f"Nothing to show: the tables cannot be read ({reason}).")

    def show(self, section: Callable[[Any], str]) -> str:
        return missing(self.problem) if self.problem else section(self.value)
