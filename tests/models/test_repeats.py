"""Repeats, by arithmetic."""

import torch

from headwater.models import repeats

HISTORY = torch.tensor([[0, 0, 2, 3, 2, 2], [0, 0, 0, 0, 0, 0], [1, 1, 1, 4, 4, 3]])


def test_an_item_scores_the_number_of_its_recent_events_and_others_score_zero():
    part = repeats.of(4, window=4)
    assert part.scores(HISTORY).tolist() == [[0, 0, 3, 1, 0], [0] * 5, [0, 1, 0, 1, 2]]  # of the last four events


def test_evidence_of_single_events_adds_up_to_the_total():
    part = repeats.of(4, window=6)
    wanted = torch.tensor([[1, 2, 3]]).expand(3, -1)
    ages = torch.tensor([[0.0, 0, 90, 60, 30, 0]]).expand(3, -1)
    whole = torch.from_numpy(part.evidence(HISTORY, ages).toarray())
    assert torch.allclose(part.evidence_of(HISTORY, part.traces(HISTORY, wanted), ages), whole.gather(1, wanted))


def test_an_event_counts_half_after_the_half_life():
    part, days = repeats.of(4), repeats.HALF_LIFE
    ages = torch.tensor([[9.0, 9, days, 2 * days, 0, 0]])
    assert part.scores(HISTORY[:1], ages).tolist() == [[0, 0, 2.5, 0.25, 0]]
