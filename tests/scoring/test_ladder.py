"""The fallbacks below the model."""

from dataclasses import replace

import numpy as np

from headwater.config import Wording
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.ladder import CHECKED_AT_ONCE, EMPTY, Ladder
from headwater.scoring.newcomers import of_histories

VIEW = 1


def catalogue(popular, *categories):
    size = len(popular)
    codes = np.array(categories or [[0]] * size, dtype=np.int32)
    return Catalogue(np.arange(size) > 0, np.array(popular), codes, np.zeros(size), np.array(["", "tea", "cake"]))


SHOP = catalogue([0.0, 9, 8, 7, 6, 0], [0, 0], [1, 0], [2, 0], [1, 2], [0, 0], [1, 0])


def fill(ladder, listed, taken, history, count, lowest=0.0, not_first=()):
    steps, out = np.array(history, dtype=np.int64), np.array(taken, dtype=np.int64)
    taken = [np.union1d(out, np.array(not_first, dtype=np.int64)), out]
    return ladder.fill(np.array(listed, dtype=np.int64), lowest, taken, steps, np.full(len(steps), VIEW), count)


def items(rows):
    return [row.item_idx for row in rows]


def test_popular_items_of_the_history_categories_come_before_popular_items_overall():
    rows = fill(Ladder(SHOP), [], [3], [3, 2], 4)
    assert items(rows) == [2, 1, 4, 5]
    assert [row.strategy for row in rows] == [
        "category_popular",
        "category_popular",
        "recent_popular",
        "recent_popular",
    ]
    assert [row.otherwise for row in rows] == ["popular in cake", "popular in tea", "popular lately", "popular lately"]


def test_the_reasons_of_popular_items_are_in_the_words_of_the_config():
    german = Wording(category="beliebt in {}", popular="gerade beliebt", categories={"cake": "Kuchen"})
    rows = fill(Ladder(SHOP, wording=german), [], [3], [3, 2], 4)
    assert [row.otherwise for row in rows] == [
        "beliebt in Kuchen",
        "beliebt in tea",
        "gerade beliebt",
        "gerade beliebt",
    ]


def test_items_that_a_list_of_popular_items_alone_would_contain_are_marked():
    draws = np.random.default_rng(5)
    size, n = 60, 5
    ladder = Ladder(catalogue(draws.permutation(size).astype(float)))
    taken = [draws.choice(np.arange(1, size + 9), k, replace=False) for k in (0, 4, 30, 1)]  # from size on: newcomers
    left = [[item for item in ladder.popular if item not in seen] for seen in taken]
    listed = np.array([[items[place] for place in (0, n, n - 1, 2 * n, 1)] for items in left])
    listed[3, 2] = 0
    expected = [[item in items[:n] for item in row] for row, items in zip(listed, left, strict=True)]
    assert ladder.listed_anyway(listed, taken).tolist() == expected


def test_items_that_must_not_come_first_are_used_only_when_nothing_else_is_left():
    rows = fill(Ladder(SHOP), [], [3], [3, 2], 4, not_first=[1, 2])
    assert items(rows) == [4, 5, 2, 1]
    assert [row.score for row in rows] == [-1.0, -2.0, -3.0, -4.0]
    assert items(fill(Ladder(SHOP), [], [3], [3, 2], 2, not_first=[1, 2])) == [4, 5]
    assert items(fill(Ladder(SHOP, most=1), [1], [], [], 4, not_first=[2])) == [4, 2, 0, 0]


def test_fallback_scores_continue_below_the_lowest_and_missing_places_are_empty():
    rows = fill(Ladder(SHOP), [1, 2], [3], [], 4, lowest=0.5)
    assert [(row.item_idx, row.score) for row in rows[:2]] == [(4, -0.5), (5, -1.5)]
    assert rows[2:] == [EMPTY, EMPTY]


def test_items_already_in_the_list_count_towards_the_category_cap():
    assert items(fill(Ladder(SHOP, most=1), [1], [], [], 3)) == [2, 4, 0]
    assert items(fill(Ladder(SHOP, most=2), [3], [], [], 4)) == [1, 2, 4, 0]


def test_the_category_cap_holds_in_a_catalogue_larger_than_one_chunk():
    size = 3 * CHECKED_AT_ONCE
    codes = [[0]] + [[1]] * (size - 2) + [[2]]
    long = catalogue(np.arange(size, 0, -1.0), *codes)
    assert items(fill(Ladder(long, most=2), [], [], [], 4)) == [1, 2, size - 1, 0]


def test_items_that_followed_an_unknown_item_for_other_users_are_listed():
    met = of_histories([[4, 2, 5], [4, 5], [5, 1], [1, 2]], np.array([4, 5]), n_items=5)
    rows = fill(Ladder(replace(SHOP, newcomers=met)), [], [4, 5], [4, 5], 2)
    # 5 is always followed by 1; 4, one event older and so weighted by half, by 2 and by 5
    assert [(row.item_idx, row.strategy, row.because_idx) for row in rows] == [
        (1, "item_transitions", 5),
        (2, "item_transitions", 4),
    ]


def test_items_that_followed_are_listed_only_while_they_are_available():
    met = of_histories([[5, 1], [5, 3]], np.array([4, 5]), n_items=5)
    sold_out = replace(SHOP, newcomers=met, available=np.array([False, False, True, True, True, True]))
    assert fill(Ladder(sold_out), [], [5], [5], 1)[0].item_idx == 3
