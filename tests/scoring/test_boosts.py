"""A site's boosts of item scores, by arithmetic."""

import numpy as np
import pytest

from headwater.config import Boosts
from headwater.scoring.boosts import DAY, of_items
from headwater.scoring.catalogue import Catalogue

SHOP = Catalogue(
    available=np.array([False, True, True, True]),
    popular=np.array([0.0, 0.9, 0.0, 0.9]),
    categories=np.zeros((4, 1), dtype=np.int32),
    first_seen=np.array([0, 100, 70, 40]) * DAY,
    names=np.array([""]),
    until=100 * DAY,
    price=np.array([0.0, np.nan, 1.0, np.e**2]),
)


def added(**boosts):
    return of_items(SHOP, Boosts(**boosts))[1:].tolist()


def test_without_a_boost_nothing_is_added():
    assert added() == [0, 0, 0]


def test_the_popularity_boost_is_its_weight_times_the_standardised_log_of_popularity():
    logs = np.log([1.0, 0.1, 1.0])
    assert added(popularity=-0.5) == pytest.approx((-0.5 * (logs - logs.mean()) / logs.std()).tolist(), rel=1e-4)


def test_the_price_boost_uses_the_log_price_and_is_zero_for_items_without_a_price():
    assert added(price=2.0) == pytest.approx([0.0, -2.0, 2.0])


def test_the_newness_boost_halves_after_each_half_life():
    assert added(newness=0.8, newness_days=30) == pytest.approx([0.8, 0.4, 0.2])


def test_boosts_add_up():
    both = np.array(added(price=2.0)) + np.array(added(newness=0.8))
    assert added(price=2.0, newness=0.8) == pytest.approx(both.tolist())


def test_the_price_boost_is_zero_in_a_catalogue_without_prices():
    bare = Catalogue(*(getattr(SHOP, name) for name in ("available", "popular", "categories", "first_seen", "names")))
    free = Catalogue(**{**bare.__dict__, "price": np.full(4, np.nan)})
    assert of_items(free, Boosts(price=1.0)).tolist() == [0, 0, 0, 0]
