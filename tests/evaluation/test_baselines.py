"""What needs no training, on histories whose answer is known."""

import numpy as np

from headwater.evaluation import baselines


def test_of_their_own_items_the_most_frequent_lead_and_popularity_decides_the_rest():
    scores = baselines.by_own(np.array([0.0, 1, 9, 3, 3, 7]))
    histories = [np.array([3, 1, 1, 4]), np.array([], np.int64), np.array([4, 77])]  # the last one: an item of tomorrow
    ranked = scores(histories, []).argsort(dim=1, descending=True, stable=True)[:, :5]
    assert ranked.tolist() == [[1, 3, 4, 2, 5], [2, 5, 3, 4, 1], [4, 2, 5, 3, 1]]
