"""Lists as arrays, and finally as rows."""

import numpy as np

from headwater.scoring.places import PLACES, Lists

TWO = np.array([[3, 5], [4, 0]])


def test_lists_become_a_row_for_each_place_with_an_item():
    lists = Lists.of(TWO, score=np.array([[2.0, 1.0], [3.0, -np.inf]]), strategy="sasrec", otherwise="")
    frame = lists.to_frame(np.array(["ann", "bob"], dtype=object), section=2)
    assert frame.columns.tolist() == ["user_id", "section", *PLACES]
    assert frame[["user_id", "section", "rank", "item_idx", "score"]].to_numpy().tolist() == [
        ["ann", 2, 1, 3, 2.0], ["ann", 2, 2, 5, 1.0], ["bob", 2, 1, 4, 3.0],
    ]  # fmt: skip
    assert frame["propensity"].isna().all()
    assert frame[["because_idx", "because_type"]].eq(0).all(axis=None)


def test_with_values_returns_a_copy_and_leaves_the_original_lists_unchanged():
    lists = Lists.of(TWO, score=0.0, strategy="sasrec", otherwise=np.array([["a"], ["b"]], dtype=object))
    filled = lists.with_values(TWO == 0, item_idx=[9], strategy="recent_popular")
    assert filled.item_idx.tolist() == [[3, 5], [4, 9]]
    assert filled.strategy.tolist() == [["sasrec", "sasrec"], ["sasrec", "recent_popular"]]
    assert lists.item_idx.tolist() == TWO.tolist()
    assert set(lists.strategy.flat) == {"sasrec"}
    assert lists.otherwise.tolist() == [["a", "a"], ["b", "b"]]


def test_lists_of_no_users_have_no_rows():
    lists = Lists.of(np.zeros((0, 3), dtype=np.int64), score=0.0, strategy="", otherwise="")
    assert lists.to_frame(np.array([], dtype=object), 0).empty
