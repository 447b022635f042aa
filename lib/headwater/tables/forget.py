"""Remove one person from every table, and from every file that an older version of a table still needs.

Deleting rows is not enough: Delta keeps the old files for time travel, the change feed keeps the deleted rows, and with
deletion vectors even a current file holds them. So these files are removed at once, and with them the change feed. Readers that
were up to date are moved past the deletion; the others have to read whole tables once.

Landing files, copies of reports and backups are not touched. They belong to whoever made them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from headwater import schemas
from headwater.errors import TableError
from headwater.frames import frame_of
from headwater.tables import readers
from headwater.tables.warehouse import MAINTAINER, Warehouse

WORD = r"\p{L}\p{N}_"
SHORT_FORMS = {" ": [r"\+"], '"': [r'\\"', '""'], "/": [r"\\/"], "\\": [r"\\\\"]}
"""What else stands for a character, as Java patterns: in a form, in JSON, in CSV."""
NOTE = {"job": MAINTAINER, "what": "forget"}


def token_pattern(user: str) -> str:
    """A Java pattern for a user id in a raw line: unchanged, or as written in JSON, a URL, an access log or CSV, but not inside a
    word.

    A number that is part of a time, an address or a decimal (``12`` in ``2026-01-12`` or ``10.0.0.12``) does not match.
    """
    literal = "".join(map(_spellings, user))
    before, after = f"(?<![{WORD}])", f"(?![{WORD}])"
    if user.isdigit():
        before, after = before + r"(?<![0-9][-.:/])", after + r"(?![-.:/][0-9])"
    return f"{before}{literal}{after}"


def _spellings(character: str) -> str:
    """A Java pattern for all that stands for one character of an id: itself, its bytes in a URL (``%C3%A9``) or an access log
    (``\\xc3\\xa9``), its code in JSON (``\\u00e9``), and the short forms of some."""
    in_bytes, code = character.encode(), character.encode("utf-16-be").hex()
    escapes = [
        "".join(f"%{byte:02x}" for byte in in_bytes),
        "".join(rf"\\x{byte:02x}" for byte in in_bytes),
        "".join(rf"\\u{code[place : place + 4]}" for place in range(0, len(code), 4)),
    ]
    forms = [re.escape(character), *SHORT_FORMS.get(character, []), *(f"(?i:{escape})" for escape in escapes)]
    return f"(?:{'|'.join(forms)})"


def require_finished_batch(warehouse: Warehouse) -> None:
    """Raises TableError while a batch of ingest is planned but unfinished: repeating it would bring the person back."""
    if not warehouse.exists("ingest_files"):
        return
    planned = warehouse.read("ingest_files").agg(F.max("batch")).first()[0]  # type: ignore[index]
    ended = warehouse.last_note("events", "ingest_events")
    if planned is not None and planned > (ended["batch"] if ended else 0):
        raise TableError(f"ingest batch {planned} is unfinished; run jobs/ingest_events.py first, then repeat --forget")


def require_copied_lists(warehouse: Warehouse) -> None:
    """Raises TableError while lists in ``topn`` are missing from ``topn_history``: only the change feed, which --forget removes,
    can carry them there."""
    if readers.progress(warehouse, readers.HISTORY).unread:
        raise TableError(
            "lists in topn are not in topn_history yet; run jobs/score_topn.py first, then repeat --forget"
        )


def forget(warehouse: Warehouse, users: Iterable[str]) -> dict[str, int]:
    """Remove a person, given by one or more ids, everywhere; returns ``rows_deleted``, ``tables``, ``files_removed``.

    A killed run may be repeated: files are purged whether or not the run finds rows. Raises TableError while a batch of ingest
    is unfinished or lists are missing from ``topn_history``.
    """
    ids = sorted(set(users))
    tables = [table for table in (*schemas.PERSONAL, "quarantine") if warehouse.exists(table)]
    with warehouse.locked(*schemas.TABLES):
        require_finished_batch(warehouse)
        require_copied_lists(warehouse)
        given = _rows(warehouse.spark, ids)
        deleted = sum(_delete(warehouse, table, given) for table in tables)
        for table in tables:
            warehouse.purge(table)
        _advance_readers(warehouse)
        removed = sum(warehouse.vacuum(table, 0) for table in tables)
    return {"rows_deleted": deleted, "tables": len(tables), "files_removed": removed}


def _rows(spark: SparkSession, ids: list[str]) -> DataFrame:
    return frame_of(spark, [(user, token_pattern(user)) for user in ids], "user_id string, pattern string")


def _delete(warehouse: Warehouse, table: str, given: DataFrame) -> int:
    condition = "rlike(old.raw, given.pattern)" if table == "quarantine" else "old.user_id = given.user_id"
    matching = warehouse.read(table).alias("old").join(given.alias("given"), F.expr(condition), how="left_semi")
    return warehouse.delete(table, given, condition, NOTE) if matching.limit(1).count() else 0


def _advance_readers(warehouse: Warehouse) -> None:
    """Let every reader continue after the change feed is gone. Readers whose output another one follows come first, because a
    note is itself a commit."""
    if readers.progress(warehouse, readers.SEQUENCES).unread:
        # without a version to continue from, the next build reads all events, which is correct whatever it had read before
        readers.annotate(
            warehouse, "sequences", {"job": readers.SEQUENCES.job, readers.SEQUENCES.key: -1, "max_length": 0}
        )
    # if feedback or lists are behind, their jobs notice that the feed is missing and read whole tables
    for reader in readers.READERS:
        readers.advance(warehouse, reader)
