"""Which group a user is in, which settings a group inherits, and which items it may show."""

import numpy as np
import pandas as pd
import pytest

from headwater.config import Topn
from headwater.scoring import groups, taste
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.users import Steps

DAY = 86_400.0
NOW = 100 * DAY
SHOP = Catalogue(
    available=np.array([False, True, True, True, True]),
    popular=np.ones(5),
    categories=np.array([[0, 0], [1, 0], [1, 2], [2, 0], [0, 0]], dtype=np.int32),
    first_seen=np.zeros(5),
    names=np.array(["", "cake", "tea"]),
    denied_to={"away": np.array([1, 2])},
)
STRATEGIES = [
    {"name": "new", "when": {"max_events": 1}, "variety_weight": 0.0},
    {"name": "away", "when": {"min_days_away": 30}, "deny": ["a", "b"], "boosts": {"newness": 1.0}},
    {"name": "cake", "when": {"category": "cake", "min_share": 0.7}, "categories": ["cake"], "max_per_category": 2},
    {"name": "heavy", "when": {"min_events": 4}, "explore": {"share": 0.2}},
]


def steps(*users):
    """Steps of users, given as (items, days since the last event); events are one day apart."""
    return Steps.of(
        pd.DataFrame(
            {
                "item_idx": [np.array(items, dtype=np.int64) for items, _ in users],
                "event_type": [np.array(["view"] * len(items), dtype=object) for items, _ in users],
                "at": [NOW - DAY * (ago + np.arange(len(items))[::-1]) for items, ago in users],
                "value": [np.full(len(items), np.nan) for items, _ in users],
            }
        )
    )


def group_names(*users, strategies=STRATEGIES):
    known = steps(*users)
    made = groups.resolve(Topn(strategies=strategies), SHOP)
    member = groups.assign(made, known, taste.mix(known, SHOP), np.full(len(users), NOW))
    return [made[place].name for place in member]


def test_a_user_is_in_the_first_group_whose_conditions_hold():
    assert group_names(([], 0), ([3], 90), ([3, 1, 3], 30), ([1, 1, 3, 1], 0), ([3, 4, 3, 3], 0), ([3, 3], 29)) == [
        "new", "new", "away", "cake", "heavy", "",
    ]  # fmt: skip


def test_all_conditions_of_a_group_must_hold():
    both = [{"name": "gone", "when": {"min_events": 2, "min_days_away": 10}}]
    assert group_names(([1, 1], 10), ([1, 1], 9), ([1], 10), ([], 0), strategies=both) == ["gone", "", "", ""]


def test_min_days_away_holds_from_exactly_that_many_days_on():
    lapsed = [{"name": "away", "when": {"min_days_away": 30}}]
    assert group_names(([1], 30), ([1], 29.9), strategies=lapsed) == ["away", ""]


def test_no_user_is_in_a_group_for_an_unknown_category():
    odd = [{"name": "soap", "when": {"category": "soap"}}]
    assert group_names(([1], 0), strategies=odd) == [""]


def test_a_group_inherits_the_settings_that_it_does_not_give():
    topn = Topn(variety_weight=0.3, max_per_category=5, boosts={"price": 0.1}, strategies=STRATEGIES)
    new, away, cake, heavy, everybody = groups.resolve(topn, SHOP)
    assert (new.topn.variety_weight, new.topn.max_per_category) == (0.0, 5)
    assert (away.topn.variety_weight, away.topn.boosts.price, away.topn.boosts.newness) == (0.3, 0.1, 1.0)
    assert (cake.variety.most, cake.topn.boosts.price) == (2, 0.1)
    assert (heavy.topn.explore.share, everybody.topn.explore.share) == (0.2, 0.0)
    assert everybody.topn == topn


def test_a_group_inherits_the_rest_of_a_partly_given_section_also_after_serialisation():
    given = [{"name": "a", "when": {}, "boosts": {"price": 0.1}, "explore": {"share": 0.2}}]
    topn = Topn(boosts={"popular_share": 0.3, "popularity": -0.2}, explore={"events": 50}, strategies=given)
    for rules in (topn, Topn.model_validate_json(topn.model_dump_json(exclude_unset=True))):
        own, _ = groups.resolve(rules, SHOP)
        assert (own.topn.boosts.popular_share, own.topn.boosts.popularity, own.topn.boosts.price) == (0.3, -0.2, 0.1)
        assert (own.topn.explore.share, own.topn.explore.events) == (0.2, 50)


def test_the_filters_of_a_group_limit_its_available_items_and_forbid_the_others():
    _, away, cake, heavy, everybody = groups.resolve(Topn(strategies=STRATEGIES), SHOP)
    assert np.flatnonzero(away.catalogue.available).tolist() == [3, 4]
    assert np.flatnonzero(cake.catalogue.available).tolist() == [1, 2]
    assert heavy.catalogue is everybody.catalogue is SHOP
    assert np.flatnonzero(cake.offsets(SHOP) == np.float32(groups.FORBIDDEN)).tolist() == [3, 4]


def test_the_category_mix_is_the_share_of_events_and_two_categories_of_an_item_count_half():
    own = taste.mix(steps(([1, 2, 2, 4], 0), ([4], 0), ([], 0)), SHOP)
    assert own.categories[:, :3].tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert own.shares[:, :2].tolist() == [[pytest.approx(2 / 3), pytest.approx(1 / 3)], [0, 0], [0, 0]]
