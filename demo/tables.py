"""Read small Delta tables without Spark, as an analyst's tool does: replay the log, then read the Parquet files.

This is enough for the demo's own tables (JSON commits, no deletion vectors); for other tables use Spark or delta-rs.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq


def read(table: Path, columns: list[str]) -> list[dict]:
    """The live rows of a table, as dicts of ``columns`` (no partition columns); empty if the table does not exist."""
    files = live_files(table)
    if not files:
        return []
    parts = [pq.ParquetFile(file).read(columns=columns) for file in files]
    return pa.concat_tables(parts).to_pylist()


def live_files(table: Path) -> list[Path]:
    """The data files of the newest version."""
    live: dict[str, None] = {}
    for commit in _commits(table):
        for line in commit.read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                assert not action["add"].get("deletionVector"), "deletion vectors are off in our tables"
                live[unquote(action["add"]["path"])] = None
            elif "remove" in action:
                live.pop(unquote(action["remove"]["path"]), None)
    return [table / path for path in live]


def committed_at(table: Path) -> datetime:
    """The commit time of the newest version."""
    for line in _commits(table)[-1].read_text().splitlines():
        action = json.loads(line)
        if "commitInfo" in action:
            return datetime.fromtimestamp(action["commitInfo"]["timestamp"] / 1000, UTC)
    raise AssertionError(f"no commitInfo in the newest version of {table}")


def _commits(table: Path) -> list[Path]:
    return sorted((table / "_delta_log").glob("[0-9]*.json"))
