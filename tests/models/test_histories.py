"""Histories as one array: the last events, padded on the left."""

import numpy as np

from headwater.models.histories import left_padded


def test_the_last_events_are_kept_and_shorter_histories_are_padded_with_zeros_on_the_left():
    rows = left_padded([[1, 2, 3], np.array([4]), []], 2)
    assert rows.dtype == np.int64
    assert rows.tolist() == [[2, 3], [0, 4], [0, 0]]


def test_without_a_length_the_longest_history_sets_it():
    assert left_padded([[1, 2, 3], [4]]).tolist() == [[1, 2, 3], [0, 0, 4]]
    assert left_padded([[]]).tolist() == [[0]]
    assert left_padded([]).shape == (0, 1)
