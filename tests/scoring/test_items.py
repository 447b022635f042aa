"""The catalogue as arrays, from rows of `items`."""

from datetime import UTC, datetime

import numpy as np
import pytest
from pyspark.sql import functions as F

from headwater import schemas
from headwater.config import Topn
from headwater.errors import UsageError
from headwater.scoring import items
from headwater.scoring.recent import RecentCounts

DAYS = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 1, 1, 20, 25)]


def catalogue(goods, popular, **topn):
    return items.load_catalogue(goods, RecentCounts(popular), Topn(**topn))


@pytest.fixture
def goods(spark):
    rows = [
        ("a", 1, None, "tools | gifts", None, None, True, DAYS[0]),
        ("b", 2, None, None, None, None, None, DAYS[1]),
        ("c", 3, None, "garden", None, None, False, DAYS[2]),
        ("d", 4, None, "garden", None, None, True, DAYS[3]),
        ("e", 5, None, "tools", None, None, True, DAYS[4]),
    ]
    return spark.createDataFrame(rows, schemas.ddl("items"))


def test_categories_that_no_item_is_of_are_refused_and_one_that_is_known_will_do(goods):
    popular = np.ones(6)
    assert catalogue(goods, popular, categories=("garden", "Garden")).available.any()
    for rules in ({"categories": ("Garden",)}, {"strategies": [{"name": "g", "when": {}, "categories": ["Garden"]}]}):
        with pytest.raises(UsageError, match="no item of the catalogue has category 'Garden'"):
            catalogue(goods, popular, **rules)


def test_an_item_may_be_shown_unless_the_catalogue_or_the_config_says_no(goods):
    popular = np.ones(6)
    assert catalogue(goods, popular).available.tolist() == [False, True, True, False, True, True]
    assert catalogue(goods, popular, deny=("d", "no such item")).available.tolist() == [
        False,
        True,
        True,
        False,
        False,
        True,
    ]


def test_what_a_group_may_not_see_is_known_by_its_index_and_others_may_see_it(goods):
    groups = [{"name": "away", "when": {}, "deny": ["d", "no such item", "b"]}, {"name": "new", "when": {}}]
    found = catalogue(goods, np.ones(6), strategies=groups)
    assert {name: items.tolist() for name, items in found.denied.items()} == {"away": [4, 2]}
    assert found.available.tolist() == [False, True, True, False, True, True]
    assert found.narrowed([], found.denied["away"]).available.tolist() == [False, True, False, False, False, True]
    assert found.narrowed(["garden"], None).available.tolist() == [False, False, False, False, True, False]


def test_a_price_is_the_items_own_or_none(goods):
    priced = goods.withColumn("price", F.when(F.col("item_idx") == 2, F.lit(9.5)))
    np.testing.assert_array_equal(catalogue(priced, np.ones(6)).price, [0, np.nan, 9.5, np.nan, np.nan, np.nan])


def test_items_that_came_after_the_count_are_not_popular_yet(goods):
    found = catalogue(goods, np.array([0.0, 3, 2]))
    assert found.popular.tolist() == [0, 3, 2, 0, 0, 0]
    assert found.by_popularity().tolist() == [1, 2, 4, 5]


def test_what_is_popular_in_a_category_is_available_and_was_wanted(goods):
    found = catalogue(goods, np.array([0.0, 1, 9, 9, 5, 7]))
    by_name = dict(zip(found.names, found.popular_in, strict=True))
    assert by_name["tools"].tolist() == [5, 1]
    assert by_name["garden"].tolist() == [4]
    assert by_name["gifts"].tolist() == [1]


def test_the_category_of_a_history_is_the_most_frequent_then_the_newest(goods):
    found = catalogue(goods, np.ones(6))
    named = lambda items: [found.names[code] for code in found.categories_of(np.array(items))]  # noqa: E731
    assert named([3, 5, 5]) == ["tools", "garden"]
    assert named([5, 4]) == ["garden", "tools"]
    assert named([4, 5, 1]) == ["tools", "gifts", "garden"]
    assert named([2]) == []


def test_categories_are_parted_where_a_site_says_so(goods):
    assert catalogue(goods, np.ones(6)).names.tolist() == ["", "garden", "gifts", "tools"]
    assert catalogue(goods, np.ones(6), category_separator="").names.tolist() == [
        "",
        "garden",
        "tools",
        "tools | gifts",
    ]


def test_a_newcomer_came_lately_and_not_with_the_first_load(goods):
    found = catalogue(goods, np.ones(6))
    assert np.flatnonzero(found.fresh(7)).tolist() == [4, 5]
    assert np.flatnonzero(found.fresh(3)).tolist() == [5]
    assert np.flatnonzero(found.fresh(90)).tolist() == [4, 5]


def test_an_empty_catalogue_has_nothing_to_show(spark):
    empty = catalogue(spark.createDataFrame([], schemas.ddl("items")), np.zeros(1))
    assert (empty.available.tolist(), empty.by_popularity().tolist()) == ([False], [])
    assert empty.fresh(7).tolist() == [False]


@pytest.mark.parametrize("n_items", [5, items.BROADCAST_LIMIT + 1])
def test_places_have_identifiers_and_titles_or_the_identifier_where_there_is_none(spark, goods, n_items):
    titled = goods.withColumn("title", F.when(F.col("item_idx") == 1, "Axe"))
    listed = spark.createDataFrame([(4, 1), (5, 2), (1, 0)], "item_idx int, because_idx int")
    found = items.with_titles(listed, titled, n_items).orderBy("item_idx").collect()
    assert [(row["item_id"], row["because_title"]) for row in found] == [("a", None), ("d", "Axe"), ("e", "b")]


@pytest.mark.parametrize("n_items", [5, items.BROADCAST_LIMIT + 1])
def test_a_place_for_an_item_that_the_catalogue_lacks_ends_the_query(spark, goods, n_items):
    listed = spark.createDataFrame([(4, 1), (6, 0)], "item_idx int, because_idx int")
    with pytest.raises(Exception, match="table items lacks item_idx 6"):
        items.with_titles(listed, goods, n_items).collect()
