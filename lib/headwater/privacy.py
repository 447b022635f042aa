"""Pseudonyms: keyed hashes (HMAC-SHA256) that replace user ids, session ids and addresses.

The key is read from ``privacy.key_file``. In Spark, native expressions compute the hash; the two key pads come from a
broadcast one-row table, so no plan, log or history page shows them. ``pseudonym`` computes the same value in plain Python,
to find a person again (``ids_of``).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headwater.errors import UsageError
from headwater.frames import frame_of

BLOCK_BYTES = 64
INNER, OUTER = "_inner_pad", "_outer_pad"


def load_key(key_file: str) -> bytes | None:
    """The secret in the key file, without surrounding white space; None if no file is configured.

    Raises UsageError when the file is missing, unreadable or empty.
    """
    if not key_file:
        return None
    try:
        key = Path(key_file).read_bytes().strip()
    except OSError as error:
        raise UsageError(f"privacy.key_file {key_file} cannot be read: {error.strerror}") from None
    if not key:
        raise UsageError(f"privacy.key_file {key_file} is empty; it must hold the secret")
    return key


def pseudonym(text: str, key: bytes) -> str:
    """The pseudonym of a user, session or address under a key, as 64 hex digits."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def ids_of(user: str, key: bytes | None) -> list[str]:
    """The ids by which tables may know a user: their pseudonym under a key, if there is one, and the id as given, which may be
    a pseudonym already."""
    return [user] if key is None else [pseudonym(user, key), user]


def with_pseudonyms(frame: DataFrame, key: bytes, values: dict[str, Callable[[Callable], Column]]) -> DataFrame:
    """``frame`` with each column in ``values`` set to the result of its function, which gets ``hashed``, the keyed hash.

    Nulls stay null.
    """
    block = hashlib.sha256(key).digest() if len(key) > BLOCK_BYTES else key
    block = block.ljust(BLOCK_BYTES, b"\0")
    pads = [(bytes(b ^ 0x36 for b in block), bytes(b ^ 0x5C for b in block))]
    pad = frame_of(frame.sparkSession, pads, f"{INNER} binary, {OUTER} binary")

    def hashed(column: Column) -> Column:
        inner = F.unhex(F.sha2(F.concat(F.col(INNER), F.encode(column, "UTF-8")), 256))
        return F.sha2(F.concat(F.col(OUTER), inner), 256)

    keyed = frame.crossJoin(F.broadcast(pad))
    return keyed.withColumns({name: make(hashed) for name, make in values.items()}).drop(INNER, OUTER)
