"""A reason is an event without which the item scores lower."""

import numpy as np
import pytest
import torch

from headwater.models import ModelSpec, build
from headwater.models.ranker import Ranker
from headwater.models.transitions import count
from headwater.scoring import reasons
from headwater.scoring.reasons import decisive_events

SEQUENCES = np.array([[0, 1, 2, 3], [4, 5, 1, 2], [3, 4, 5, 6], [7, 9, 7, 9]])


@pytest.fixture(params=[True, False], ids=["hybrid", "alone"])
def ranker(request):
    torch.manual_seed(1)
    model = build(ModelSpec("sasrec", n_items=9, max_length=5, dim=8, layers=1, heads=1))
    blend = {"blend": {"transitions": 4.0, "recency": 0.5}}
    made = Ranker(model, blend, {"transitions": count(SEQUENCES, 9)} if request.param else None)
    return made.with_recency(np.arange(10.0))


def reasons_of(ranker, listed, items, types, may_name=None):
    query = ranker.query(items, types)
    traces = query.evidence.traces(listed)
    scores = ranker.scores_of(listed, query, traces)
    part = ranker.history_part(listed, scores, query)
    return decisive_events(ranker, listed, scores, traces, part, items, types, may_name)


def least(ranker, history, listed):
    """How much lower each listed item must score without an event that is its reason, ``[n]``."""
    items, types = ranker.pad([history], [[1] * len(history)])
    query = ranker.query(items, types)
    part = ranker.history_part(listed.unsqueeze(0), ranker.scores_of(listed.unsqueeze(0), query), query)[0]
    return reasons.LEAST_SHARE * part.clamp(min=0) / len(history)


def losses(ranker, history, listed):
    """How much lower each listed item scores without each event, ``[events, n]``."""
    lower = []
    for left_out in range(len(history)):
        rest = history[:left_out] + history[left_out + 1 :]
        before = ranker.scores(*ranker.pad([history], [[1] * len(history)]))[0, listed]
        lower.append(before - ranker.scores(*ranker.pad([rest], [[1] * len(rest)]))[0, listed])
    return torch.stack(lower)


def test_removing_the_reason_lowers_the_score_by_enough_and_only_items_without_such_an_event_have_none(
    ranker, monkeypatch
):
    monkeypatch.setattr(reasons, "TRIED", 5)  # more events than these histories have
    histories = [[1, 2, 3], [5, 8], [4, 4, 7], [9, 1]]
    items, types = ranker.pad(histories, [[1] * len(history) for history in histories])
    listed = torch.tensor([[4, 6, 9], [1, 2, 3], [5, 9, 1], [2, 3, 7]])
    places = reasons_of(ranker, listed, items, types)
    assert (places >= 0).any()
    for row, history in enumerate(histories):
        lower = losses(ranker, history, listed[row])
        enough = (lower > 0) & (lower >= least(ranker, history, listed[row]))
        for n, place in enumerate(places[row].tolist()):
            if place < 0:
                assert not enough[:, n].any()
            else:
                assert enough[place - items.shape[1] + len(history), n]
    assert (places < 0).any()


def test_the_reason_is_the_event_whose_removal_lowers_the_item_most_relative_to_the_list(ranker, monkeypatch):
    monkeypatch.setattr(reasons, "TRIED", 5)  # more events than these histories have
    histories = [[1, 2, 3], [9, 1, 5, 6], [7, 7, 2, 7]]
    items, types = ranker.pad(histories, [[1] * len(history) for history in histories])
    listed = torch.tensor([[4, 6, 9, 5], [2, 3, 7, 0], [9, 1, 0, 0]])
    places = reasons_of(ranker, listed, items, types)
    for row, history in enumerate(histories):
        offset, count = items.shape[1] - len(history), int((listed[row] > 0).sum())
        lower = losses(ranker, history, listed[row, :count])
        enough = (lower > 0) & (lower >= least(ranker, history, listed[row, :count]))
        beyond = (lower - lower.mean(dim=1, keepdim=True)).masked_fill(~enough, -torch.inf)
        expected = torch.where(enough.any(dim=0), beyond.argmax(dim=0) + offset, -1).tolist()
        assert places[row].tolist() == expected + [-1] * (listed.shape[1] - count)


def test_an_event_that_may_not_be_named_is_no_reason(ranker):
    items, types = ranker.pad([[1, 2, 3], [5]], [[1] * 3, [1]])
    listed = torch.tensor([[4, 6, 9], [1, 2, 3]])
    unnamed = (items == 3) | (items == 5)  # each user's newest event
    places = reasons_of(ranker, listed, items, types, ~unnamed)
    assert set(places[0].tolist()) <= {-1, 2, 3}
    assert places[1].tolist() == [-1] * 3
    assert (reasons_of(ranker, listed, items, types)[1] == 4).all()


def test_events_tried_as_reasons_are_the_newest_and_those_that_cover_the_remaining_items():
    likeness = torch.tensor(
        [
            [[0.9, 0.1, 0.1], [0.2, 0.8, 0.7], [0.1, 0.9, 0.1], [0.0, 0.3, 0.1], [0.6, 0.0, 0.0]],
            [[0.9, 0.9, 0.9], [0.9, 0.9, 0.9], [0.9, 0.9, 0.9], [0.1, 0.1, 0.1], [0.6, 0.6, 0.6]],
        ]
    )
    left = torch.tensor([[True] * 5, [False] * 3 + [True] * 2])
    assert reasons._worth_trying(likeness, left).tolist() == [[4, 1, 0], [4, 3, -1]]


def test_a_single_event_is_the_reason_for_every_item(ranker):
    items, types = ranker.pad([[3]], [[1]])
    assert reasons_of(ranker, torch.tensor([[4, 9]]), items, types).tolist() == [[4, 4]]


def test_in_a_hybrid_the_reason_for_an_item_is_the_event_that_it_usually_follows():
    torch.manual_seed(1)
    model = build(ModelSpec("sasrec", n_items=9, max_length=5, dim=8, layers=1, heads=1))
    made = Ranker(model, {"blend": {"transitions": 50.0, "recency": 0.0}}, {"transitions": count(SEQUENCES, 9)})
    items, types = made.pad([[7, 8, 4]], [[1, 1, 1]])
    assert reasons_of(made, torch.tensor([[9, 5]]), items, types).tolist() == [[2, 4]]


def test_without_a_history_there_is_no_reason(ranker):
    items, types = ranker.pad([[], [1]], [[], [1]])
    assert reasons_of(ranker, torch.tensor([[4], [4]]), items, types).tolist() == [[-1], [4]]
