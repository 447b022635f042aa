"""Item transitions by arithmetic."""

import numpy as np
import torch

from headwater.models import transitions


def test_later_items_gain_one_over_the_gap_and_rows_sum_to_one():
    counted = transitions.count(np.array([[0, 1, 2, 3]]), 3).matrix.toarray()
    expected = np.zeros((4, 4))
    expected[1, 2], expected[1, 3] = 1 / 1.5, 0.5 / 1.5
    expected[2, 3] = 1.0
    np.testing.assert_allclose(counted, expected, rtol=1e-6)


def test_scores_add_the_last_items_rows_older_ones_by_half():
    counted = transitions.count(np.array([[1, 2, 3]]), 3)
    scores = counted.scores(torch.tensor([[0, 1, 2]]))
    np.testing.assert_allclose(scores.numpy(), [[0, 0, 0.5 / 1.5, 1 + 0.25 / 1.5]], rtol=1e-6)
    assert counted.scores(torch.zeros(1, 3, dtype=torch.int64)).abs().sum() == 0
