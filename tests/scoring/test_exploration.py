"""Explored places, for items with few events: which items get them, their propensity, and the same draw for the same list."""

import numpy as np
import pytest

from headwater.config import Explore
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.exploration import draw, little_known, seeds, within_cap

DAY = 86_400.0
MANY = 20_000
SEED = seeds(np.array([f"u{k}" for k in range(MANY)]), np.zeros(MANY), 1)
FOUR = np.tile([7, 8, 9, 4], (MANY, 1))


def test_little_known_items_have_few_events_and_the_newest_are_kept_up_to_the_limit():
    catalogue = Catalogue(
        available=np.array([False, True, True, True, True, False]),
        popular=np.array([0, 9.0, 2.0, 1.0, 0.0, 0.0]),
        categories=np.zeros((6, 1), dtype=np.int32),
        first_seen=np.array([0, 5, 1, 3, 2, 4]) * DAY,
        names=np.array([""]),
    )
    assert [half.tolist() for half in little_known(catalogue, Explore(events=5))] == [[4], [2, 3]]
    assert [half.tolist() for half in little_known(catalogue, Explore(events=5, items=2))] == [[4], [3]]
    assert [half.tolist() for half in little_known(catalogue, Explore(events=1))] == [[4]]


def test_candidates_without_room_in_one_of_their_categories_are_removed():
    categories = np.array([[0, 0], [1, 0], [1, 2], [2, 0], [0, 0], [3, 0]])
    listed, found = np.array([[1, 2], [3, 0]]), np.array([[1, 2, 3, 4, 5], [1, 2, 3, 4, 0]])
    assert within_cap(found, listed, categories, 2, 1).tolist() == [[0, 0, 3, 4, 5], [1, 2, 3, 4, 0]]
    assert within_cap(found, listed, categories, 2, 2).tolist() == [[0, 0, 0, 4, 5], [1, 0, 0, 4, 0]]


@pytest.mark.parametrize(("share", "n"), [(0.2, 10), (0.05, 10), (0.13, 10), (0.25, 2)])
def test_the_configured_share_of_places_is_explored_at_the_end_of_the_lists(share, n):
    drawn = draw(SEED, FOUR, share, n)
    given = drawn.items > 0
    assert given.mean() == pytest.approx(share, abs=0.005)
    most = int(np.ceil(share * n))
    assert not given[:, : n - most].any()
    assert (given[:, 1:] >= given[:, :-1]).all()


def test_the_propensity_of_a_place_is_how_often_its_item_is_drawn_there():
    drawn = draw(SEED, FOUR, 0.15, 10)  # the last place always, the one before it in every second list
    for item in FOUR[0]:
        for place, expected in ((9, 1 / 4), (8, 1 / 8)):
            there = drawn.items[:, place] == item
            assert there.mean() == pytest.approx(expected, abs=0.01)
            assert (drawn.propensity[there, place] == expected).all()
    assert (drawn.propensity[drawn.items[:, 8] == 0, 8] == 1 / 2).all()
    assert (drawn.propensity[:, :8] == 1).all()


def test_no_item_is_drawn_twice_and_places_stay_unexplored_when_candidates_run_out():
    drawn = draw(SEED[:3], np.array([[5, 0, 0], [0, 0, 0], [5, 6, 7]]), 0.3, 10)
    assert [sorted(row[row > 0].tolist()) for row in drawn.items] == [[5], [], [5, 6, 7]]
    assert drawn.propensity[0].tolist() == [1.0] * 10  # the only candidate, so it is certain
    assert drawn.propensity[1].tolist() == [1.0] * 10
    assert drawn.propensity[2, 7:].tolist() == pytest.approx([1 / 3] * 3)


def test_a_seed_depends_on_user_last_event_and_model_but_not_on_the_other_users():
    names, times = np.array(["a", "b", "c"]), np.array([1.5, 2.5, -np.inf])
    again = seeds(names[1:], times[1:], 1)
    assert again.tolist() == seeds(names, times, 1)[1:].tolist()
    assert not set(again.tolist()) & {*seeds(names[1:], times[1:], 2).tolist(), *seeds(names[1:], times[1:] + 1, 1)[:1]}


def test_a_draw_stays_the_same_across_releases():
    """A change of the hash would redraw all lists when a site upgrades."""
    assert draw(SEED[:4], FOUR[:4], 0.3, 3).items[:, 2].tolist() == [9, 4, 9, 8]
