"""The event behind a row is the one whose item is most like it."""

import torch

from headwater.scoring.reasons import closest_events

VECTORS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [0.1, 3.0]])


def test_the_most_alike_event_is_the_reason():
    history = torch.tensor([[0, 1, 2]])
    assert closest_events(torch.tensor([[3, 4]]), history, VECTORS).tolist() == [[1, 2]]


def test_of_equal_events_the_latest_is_the_reason():
    assert closest_events(torch.tensor([[3]]), torch.tensor([[1, 1, 2]]), VECTORS).tolist() == [[1]]


def test_without_a_history_the_place_is_padding():
    assert closest_events(torch.tensor([[3]]), torch.tensor([[0, 0, 0]]), VECTORS).tolist() == [[2]]
