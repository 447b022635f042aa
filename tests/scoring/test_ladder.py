"""The rungs below the model."""

import numpy as np

from headwater.scoring.catalogue import Catalogue
from headwater.scoring.ladder import LOOKED_AT, NOTHING, Ladder

NOBODY = np.empty(0, np.int64)


def catalogue(popular, *categories):
    size = len(popular)
    codes = np.array(categories or [[0]] * size, dtype=np.int32)
    return Catalogue(np.arange(size) > 0, np.array(popular), codes, np.zeros(size), np.array(["", "tea", "cake"]))


SHOP = catalogue([0.0, 9, 8, 7, 6, 0], [0, 0], [1, 0], [2, 0], [1, 2], [0, 0], [1, 0])


def items(rows):
    return [row[0] for row in rows]


def test_the_category_of_the_history_comes_before_what_is_popular_anywhere():
    rows = Ladder(SHOP).fill(NOBODY, 0.0, np.array([3]), np.array([3, 2]), 4)
    assert items(rows) == [2, 1, 4, 5]
    assert [row[2] for row in rows] == ["category_popular", "category_popular", "recent_popular", "recent_popular"]
    assert [row[3] for row in rows] == ["popular in cake", "popular in tea", "popular lately", "popular lately"]


def test_scores_go_on_below_the_lowest_and_what_is_missing_is_nothing():
    rows = Ladder(SHOP).fill(np.array([1, 2]), 0.5, np.array([3]), NOBODY, 4)
    assert rows[:2] == [(4, -0.5, "recent_popular", "popular lately"), (5, -1.5, "recent_popular", "popular lately")]
    assert rows[2:] == [NOTHING, NOTHING]


def test_what_is_listed_above_counts_for_the_cap():
    assert items(Ladder(SHOP, most=1).fill(np.array([1]), 0.0, NOBODY, NOBODY, 3)) == [2, 4, 0]
    assert items(Ladder(SHOP, most=2).fill(np.array([3]), 0.0, NOBODY, NOBODY, 4)) == [1, 2, 4, 0]


def test_a_cap_is_kept_in_a_catalogue_longer_than_one_look():
    size = 3 * LOOKED_AT
    codes = [[0]] + [[1]] * (size - 2) + [[2]]
    long = catalogue(np.arange(size, 0, -1.0), *codes)
    assert items(Ladder(long, most=2).fill(NOBODY, 0.0, NOBODY, NOBODY, 4)) == [1, 2, size - 1, 0]
