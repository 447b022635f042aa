"""Item transitions by arithmetic."""

import numpy as np
import torch

from headwater.models import transitions


def test_later_items_count_one_over_the_gap_and_each_row_is_normalised():
    counted = transitions.count(np.array([[0, 1, 2, 3]]), 3).matrix.toarray()
    expected = np.zeros((4, 4))
    expected[1, 2], expected[1, 3] = 1 / 1.5, 0.5 / 1.5
    expected[2, 3] = 1.0
    np.testing.assert_allclose(counted, expected, rtol=1e-6)


def test_a_share_below_a_thousandth_is_dropped_and_the_others_stay_as_they_are():
    walks = np.array([[1, 2]] * 1_001 + [[1, 3]] * 2 + [[1, 4]])
    counted = transitions.count(walks, 4).matrix.toarray()
    np.testing.assert_allclose(counted[1], [0, 0, 1_001 / 1_004, 2 / 1_004, 0], rtol=1e-6)


def test_an_item_followed_equally_rarely_by_many_items_has_no_transitions():
    walks = np.array([[1, item] for item in range(2, 1_203)])
    assert transitions.count(walks, 1_202).matrix.nnz == 0


def test_scores_add_the_rows_of_the_last_items_with_weights_that_halve_with_age():
    counted = transitions.count(np.array([[1, 2, 3]]), 3)
    scores = counted.scores(torch.tensor([[0, 1, 2]]))
    np.testing.assert_allclose(scores.numpy(), [[0, 0, 0.5 / 1.5, 1 + 0.25 / 1.5]], rtol=1e-6)
    assert counted.scores(torch.zeros(1, 3, dtype=torch.int64)).abs().sum() == 0
