"""How closely the categories of a list follow a user's own mix."""

from math import log

import numpy as np
import pytest

from headwater.scoring.catalogue import Catalogue
from headwater.scoring.taste import Taste, miscalibration

CAKE, BOTH, TEA, PLAIN = 1, 2, 3, 4
SHOP = Catalogue(
    available=np.arange(5) > 0,
    popular=np.ones(5),
    categories=np.array([[0, 0], [1, 0], [1, 2], [2, 0], [0, 0]], dtype=np.int32),
    first_seen=np.zeros(5),
    names=np.array(["", "cake", "tea"]),
)


@pytest.mark.parametrize(
    ("cake", "tea", "listed", "expected"),
    [
        (0.5, 0.5, [CAKE, TEA], 0.0),
        (0.5, 0.5, [BOTH, 0], 0.0),
        (0.75, 0.25, [TEA, 0], 0.75 * log(1 / 0.01) + 0.25 * log(0.25 / (0.99 + 0.01 * 0.25))),
        # the item without a category counts on neither side
        (0.75, 0.25, [BOTH, PLAIN], 0.75 * log(0.75 / (0.495 + 0.0075)) + 0.25 * log(0.25 / (0.495 + 0.0025))),
        (1.0, 0.0, [CAKE, TEA], log(1 / (0.99 * 0.5 + 0.01))),
        (0.5, 0.5, [PLAIN, 0], np.nan),
        (0.5, 0.5, [0, 0], np.nan),
        (0.0, 0.0, [CAKE, TEA], np.nan),
    ],
)
def test_the_distance_of_a_list_from_the_users_own_mix(cake, tea, listed, expected):
    own = Taste(np.array([[1, 2, 0], [1, 2, 0]]), np.array([[1, 0, 0], [cake, tea, 0]], dtype=np.float32))
    found = miscalibration(own, np.array([[CAKE, CAKE], listed]), SHOP)
    assert found == pytest.approx([0.0, expected], nan_ok=True, abs=1e-6)
