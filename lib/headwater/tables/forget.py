"""Remove one person from every table, and from every file that an older version of a table still needs.

Deleting rows is not forgetting: Delta keeps the old files for time travel, the change feed keeps what was deleted, and
where rows are only marked as gone, a file of today holds them. So the files go at once, and with them the change feed;
readers that were up to date are moved past the deletion, and those that were not are made to read whole tables once.

Not reached from here: landing files, copies of reports, backups. They belong to whoever made them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from headwater import schemas
from headwater.errors import TableError
from headwater.in_hand import constant
from headwater.tables import readers
from headwater.tables.warehouse import MAINTAINER, Warehouse

WORD = r"\p{L}\p{N}_"
NOTE = {"job": MAINTAINER, "what": "forget"}


def token_pattern(user: str) -> str:
    """A Java pattern for a user id inside a raw line: as it is, or as JSON, a URL or CSV write it, not within a word.

    A number that is part of a time, an address or a decimal (``12`` in ``2026-01-12`` or ``10.0.0.12``) is no id.
    """
    in_json = {json.dumps(user)[1:-1], json.dumps(user, ensure_ascii=False)[1:-1]}
    forms = {user, quote(user), quote(user, safe=""), quote_plus(user), user.replace('"', '""'), *in_json}
    literal = "|".join(re.escape(form) for form in sorted(forms, key=lambda form: (-len(form), form)))
    before, after = f"(?<![{WORD}])", f"(?![{WORD}])"
    if user.isdigit():
        before, after = before + r"(?<![0-9][-.:/])", after + r"(?![-.:/][0-9])"
    return f"{before}(?:{literal}){after}"


def refuse_half_taken(warehouse: Warehouse) -> None:
    """Raises TableError while a batch of ingest is planned and not ended: its rerun would bring the person back."""
    if not warehouse.exists("ingest_files"):
        return
    planned = warehouse.read("ingest_files").agg(F.max("batch")).first()[0]  # type: ignore[index]
    ended = warehouse.last_note("events", "ingest_events")
    if planned is not None and planned > (ended["batch"] if ended else 0):
        raise TableError(f"ingest batch {planned} is half taken; run jobs/ingest_events.py first, then forget again")


def refuse_unpublished(warehouse: Warehouse) -> None:
    """Raises TableError while lists stand in ``topn`` and not yet in ``topn_history``: the change feed carries them."""
    if readers.progress(warehouse, readers.HISTORY).unread:
        raise TableError("lists in topn are not in topn_history yet; run jobs/score_topn.py first, then forget again")


def forget(warehouse: Warehouse, users: Iterable[str]) -> dict[str, int]:
    """Remove a person, known under some ids, everywhere; returns ``rows_deleted``, ``tables``, ``files_removed``.

    Safe to be killed and run again: files are purged whether or not this run found rows.
    """
    ids = sorted(set(users))
    tables = [table for table in (*schemas.PERSONAL, "quarantine") if warehouse.exists(table)]
    with warehouse.locked(*schemas.TABLES):
        refuse_half_taken(warehouse)
        refuse_unpublished(warehouse)
        given = _rows(warehouse.spark, ids)
        deleted = sum(_delete(warehouse, table, given) for table in tables)
        for table in tables:
            warehouse.purge(table)
        _settle_readers(warehouse)
        removed = sum(warehouse.vacuum(table, 0) for table in tables)
    return {"rows_deleted": deleted, "tables": len(tables), "files_removed": removed}


def _rows(spark: SparkSession, ids: list[str]) -> DataFrame:
    return constant(spark, [(user, token_pattern(user)) for user in ids], "user_id string, pattern string")


def _delete(warehouse: Warehouse, table: str, given: DataFrame) -> int:
    condition = "rlike(old.raw, given.pattern)" if table == "quarantine" else "old.user_id = given.user_id"
    held = warehouse.read(table).alias("old").join(given.alias("given"), F.expr(condition), how="left_semi")
    return warehouse.delete(table, given, condition, NOTE) if held.limit(1).count() else 0


def _settle_readers(warehouse: Warehouse) -> None:
    """Leave every reader able to go on once the change feed is gone; outputs of others first, as notes are commits."""
    if readers.progress(warehouse, readers.SEQUENCES).unread:
        # no version to go on from: the next build takes all events, which is right whatever it had read
        readers.annotate(
            warehouse, "sequences", {"job": readers.SEQUENCES.job, readers.SEQUENCES.key: -1, "max_length": 0}
        )
    # feedback and lists that are behind notice the missing feed themselves, and read whole tables
    for reader in readers.READERS:
        readers.advance(warehouse, reader)
