"""Batches prepared by a background thread during computation, so that a model waits for little but an epoch's first file."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from headwater.training.readers import Batch

QUEUE_LENGTH = 4
"""The most batches that wait in the queue."""


@contextmanager
def prefetched(batches: Iterable[Batch], pinned: bool) -> Iterator[Iterator[dict[str, Tensor]]]:
    """The batches in their order, as CPU tensors, in ``pinned`` memory for copies to a GPU.

    An error of the reader is raised where its batch would have come. The end of the block ends the thread too, however far it
    was.
    """
    ready: queue.Queue[Any] = queue.Queue(QUEUE_LENGTH)
    stopped = threading.Event()

    def put(entry: Any) -> None:
        while not stopped.is_set():
            try:
                return ready.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for batch in batches:
                tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
                put({name: tensor.pin_memory() for name, tensor in tensors.items()} if pinned else tensors)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    def received() -> Iterator[dict[str, Tensor]]:
        while (batch := ready.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield batch

    reader = threading.Thread(target=read, name="reader", daemon=True)
    reader.start()
    try:
        yield received()
    finally:
        stopped.set()
        reader.join()


def parts(batch: dict[str, Tensor], count: int) -> Iterator[dict[str, Tensor]]:
    """A batch in ``count`` parts of about equally many rows. All ranks need the same number of parts, so if there are too few
    rows, a part is the first row with weight 0."""
    for place in range(count):
        rows = slice(place, None, count) if place < len(batch["item"]) else slice(0, 1)
        part = {name: tensor[rows] for name, tensor in batch.items()}
        yield part if place < len(batch["item"]) else {**part, "weight": torch.zeros_like(part["weight"])}
