"""Prefetched batches: their order, the reader's errors, and stopping before the last batch."""

import threading

import numpy as np
import pytest
import torch

from headwater.training import readers
from headwater.training.prefetch import QUEUE_LENGTH, parts, prefetched


def numbered(count, read=None):
    for number in range(count):
        if read is not None:
            read.append(number)
        yield {"item": np.full((2, 3), number)}


def test_batches_come_as_tensors_in_their_order():
    with prefetched(numbered(20), pinned=False) as batches:
        assert [int(batch["item"][0, 0]) for batch in batches] == list(range(20))


def test_an_error_of_the_reader_is_raised_after_the_batches_that_it_read():
    def breaks():
        yield from numbered(2)
        raise OSError("the disk is gone")

    taken = []
    with pytest.raises(OSError, match="the disk is gone"), prefetched(breaks(), pinned=False) as batches:
        taken.extend(batches)
    assert len(taken) == 2


def test_reading_ahead_is_bounded_and_the_thread_ends_with_the_block():
    read, threads = [], threading.active_count()
    with prefetched(numbered(1_000, read), pinned=False) as batches:
        next(batches)
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    assert len(read) <= QUEUE_LENGTH + 3  # one was taken, one waits for room, one is in progress when the block ends


def test_only_the_next_file_is_read_ahead_while_the_batches_of_one_are_taken():
    rows = {"item": np.arange(1, 13).reshape(4, 3)}
    read, second, threads = [], threading.Event(), threading.active_count()

    def reader(path):
        read.append(path)
        if len(read) == 2:
            second.set()
        return rows

    batches = readers.epoch(["a", "b", "c"], reader, 2, seed=1, number=1)
    next(batches)
    assert second.wait(10)
    batches.close()
    assert len(read) == 2
    assert threading.active_count() == threads


@pytest.mark.parametrize(("files", "times"), [(["a"], 1), (["a", "b"], 6)])
def test_a_single_file_is_read_once_and_several_files_in_every_epoch(files, times):
    read = []

    def reader(path):
        read.append(path)
        return {"item": np.arange(1, 13).reshape(4, 3)}

    kept = readers.cached(reader, files)
    for number in range(3):
        assert sum(len(batch["item"]) for batch in readers.epoch(files, kept, 2, 1, number)) == 4 * len(files)
    assert len(read) == times


def test_an_error_in_a_file_read_ahead_is_raised_after_the_batches_before_it():
    def reader(path):
        if read:
            raise OSError("the disk is gone")
        read.append(path)
        return {"item": np.arange(1, 13).reshape(4, 3)}

    read = []
    batches = readers.epoch(["a", "b"], reader, 2, seed=1, number=1)
    assert [len(next(batches)["item"]) for _ in range(2)] == [2, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_parts_divide_the_rows_and_an_empty_part_has_weight_zero():
    batch = {"item": torch.arange(1, 6).reshape(5, 1), "weight": torch.ones(5, 1)}
    found = list(parts(batch, 2))
    assert [part["item"].flatten().tolist() for part in found] == [[1, 3, 5], [2, 4]]
    few = list(parts({name: values[:1] for name, values in batch.items()}, 3))
    assert [part["weight"].flatten().tolist() for part in few] == [[1.0], [0.0], [0.0]]
    assert torch.equal(next(parts(batch, 1))["item"], batch["item"])
