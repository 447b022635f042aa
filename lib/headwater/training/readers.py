"""Two readers of a snapshot that return the same batches: Petastorm, and plain pyarrow.

A batch is a dict of numpy arrays ``item``, ``context`` (int64) and ``weight`` (float32), each ``[rows, length]``. The order is a
function of (seed, epoch, rank, world) alone: files are permuted identically on every rank, rank r takes ``files[r::world]``,
rows are permuted within a file and grouped by length, to save padding; then the batches of the file are shuffled. Batches of one
file have similar numbers of events: many short sequences, or few long ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow
import pyarrow.parquet as parquet

from headwater.errors import TableError
from headwater.models import context
from headwater.training.snapshot import SCHEMA

Batch = dict[str, np.ndarray]
STORED = {"item": np.int64, "type": np.int64, "at": np.int64, "value": np.float64, "weight": np.float32}


class Reader(Protocol):
    """Reads one whole file of a snapshot: a batch of all its rows, in the order they were written."""

    def __call__(self, path: str) -> Batch: ...


def read_pyarrow(path: str) -> Batch:
    table = parquet.read_table(path, columns=list(SCHEMA))
    return _batch({name: _matrix(_flat(table, name), len(table), kind) for name, kind in STORED.items()})


def read_petastorm(path: str) -> Batch:
    """Read with Petastorm. One worker and no shuffling keep the rows in file order; only files of the manifest are read, never a
    folder.

    Petastorm takes the path of a URL literally, so a space in it must not be percent-encoded.
    """
    from petastorm import make_batch_reader

    options = {"reader_pool_type": "thread", "workers_count": 1, "num_epochs": 1, "shuffle_row_groups": False}
    with (
        _quietly(),
        make_batch_reader([f"file://{Path(path).resolve()}"], schema_fields=list(SCHEMA), **options) as reader,
    ):
        groups = [{name: np.asarray(getattr(group, name)) for name in STORED} for group in reader]
    return _batch(
        {name: np.concatenate([group[name] for group in groups]).astype(kind) for name, kind in STORED.items()}
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppress Petastorm's output: a dozen warnings per file of what pyarrow drops after the pinned release, and a line."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore", FutureWarning)
        yield


READERS: dict[str, Reader] = {"petastorm": read_petastorm, "pyarrow": read_pyarrow}


def weighted(read: Reader, targets: Sequence[float]) -> Reader:
    """A reader that multiplies weights by those of ``targets``, one per event type code, that of padding first."""
    table = np.asarray(targets, dtype=np.float32)

    def read_weighted(path: str) -> Batch:
        rows = read(path)
        types = context.part(rows["context"], "event_type")
        return {**rows, "weight": rows["weight"] * table[types]}

    return read_weighted


def checked_reader(name: str, targets: Sequence[float], n_items: int) -> Reader:
    """The reader of a training, ``weighted``; raises TableError if a file holds an unknown item (``need_known``)."""
    read = weighted(READERS[name], targets)

    def read_checked(path: str) -> Batch:
        rows = read(path)
        need_known(rows["item"], path, n_items)
        return rows

    return read_checked


def need_known(item: np.ndarray, path: str, n_items: int) -> np.ndarray:
    """The items of a file, unchanged; raises TableError, naming the file, if one is outside a table of ``n_items``.

    With most models torch would raise an error that does not name the file; BERT4Rec would read ``n_items + 1`` as its mask.
    """
    beyond = item[(item < 0) | (item > n_items)]
    if len(beyond):
        raise TableError(
            f"training snapshot file {path} holds item index {beyond[0]}, but the model knows only 1 to {n_items}; "
            f"delete {Path(path).parent}"
        )
    return item


def cached(read: Reader, files: Sequence[str]) -> Reader:
    """The reader for ``files``. A single file, which would be read again in each epoch, is read once and kept in memory."""
    return lru_cache(maxsize=1)(read) if len(files) == 1 else read


def read_items(files: list[str], n_items: int) -> np.ndarray:
    """All items of a snapshot at once, int32 ``[rows, length]``, without the repeated rows of weight 0 (``snapshot.export``).

    Raises TableError if an item is unknown (``need_known``).
    """

    def read(path: str) -> np.ndarray:
        table = parquet.read_table(path, columns=["item", "weight"])
        item, weight = (_flat(table, name).reshape(len(table), -1) for name in table.column_names)
        return need_known(item[weight.any(axis=1)], path, n_items)

    return np.concatenate([read(path) for path in files])


def items_in(sequences: np.ndarray, n_items: int) -> np.ndarray:
    """Bool ``[n_items + 1]``: padding, and the items that occur in int ``sequences`` (``read_items``)."""
    return np.bincount(sequences.ravel(), minlength=n_items + 1)[: n_items + 1].astype(bool) | (
        np.arange(n_items + 1) == 0
    )


def target_counts(files: list[str], read: Reader, n_items: int) -> np.ndarray:
    """How often each item is a target in some files, float32 ``[n_items + 1]``; positions of weight 0 do not count."""
    counts = np.zeros(n_items + 1, dtype=np.float32)
    for path in files:
        rows = read(path)
        wanted = (rows["item"][:, 1:] > 0) & (rows["item"][:, :-1] > 0) & (rows["weight"][:, 1:] > 0)
        counts += np.bincount(rows["item"][:, 1:][wanted], minlength=n_items + 1).astype(np.float32)
    return counts


def steps_per_epoch(files: Sequence[Mapping[str, Any]], batch_size: int, world: int) -> int:
    """Batches of one rank per epoch, for ``files`` as listed in a manifest and ``batch_size`` rows over all ranks."""
    rows = max(1, batch_size // world)
    return sum(-(-file["rows"] // rows) for file in files) // world


def epoch(
    files: list[str], read: Reader, batch_rows: int, seed: int, number: int, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """The batches of one rank in one epoch, ``batch_rows`` rows each on average; every rank gets equally many.

    The next file is read while the batches of the current one are consumed, so a rank holds two files at a time.
    """
    assert len(files) % world == 0, "the snapshot was written for another number of processes"
    order = np.random.default_rng((seed, number)).permutation(len(files))[rank::world]
    with ThreadPoolExecutor(max_workers=1) as executor:
        upcoming = [executor.submit(read, files[order[0]])]
        for place, file in enumerate(order, start=1):
            rows = upcoming.pop().result()
            upcoming += [executor.submit(read, files[following]) for following in order[place : place + 1]]
            rng = np.random.default_rng((seed, number, int(file)))
            shuffled = rng.permutation(len(rows["item"]))
            lengths = (rows["item"][shuffled] > 0).sum(axis=1)
            order_by_length = np.argsort(lengths, kind="stable")
            batches = np.split(shuffled[order_by_length], _cuts(lengths[order_by_length], batch_rows))
            for each in rng.permutation(len(batches)):
                yield _trim({name: values[batches[each]] for name, values in rows.items()})


def _cuts(lengths: np.ndarray, batch_rows: int) -> np.ndarray:
    """Where to cut rows of ascending ``lengths`` into non-empty batches with similar numbers of events."""
    count = -(-len(lengths) // batch_rows)
    place = np.arange(1, count)
    cuts = np.searchsorted(lengths.cumsum(), lengths.sum() * place / count) + 1
    return np.minimum(np.maximum.accumulate(cuts - place) + place, len(lengths) - count + place)


def _trim(batch: Batch) -> Batch:
    """Cut the padding that all rows share, but keep at least two steps."""
    longest = max(2, int((batch["item"] > 0).sum(axis=1).max()))
    return {name: values[:, -longest:] for name, values in batch.items()}


def _batch(stored: Batch) -> Batch:
    """A batch as models read it, from rows as they are stored."""
    item = stored["item"]
    first = np.concatenate([np.ones((len(item), 1), dtype=bool), item[:, :-1] == 0], axis=1)
    codes = context.pack(stored["type"], stored["at"], stored["value"], first)
    return {"item": item, "context": codes, "weight": stored["weight"]}


def _flat(table: pyarrow.Table, name: str) -> np.ndarray:
    return table[name].combine_chunks().flatten().to_numpy()


def _matrix(flat: np.ndarray, rows: int, kind: type) -> np.ndarray:
    return flat.reshape(rows, -1).astype(kind)
