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


def test_a_category_filter_needs_at_least_one_category_that_items_have(goods):
    popular = np.ones(6)
    assert catalogue(goods, popular, categories=("garden", "Garden")).available.any()
    for rules in ({"categories": ("Garden",)}, {"strategies": [{"name": "g", "when": {}, "categories": ["Garden"]}]}):
        with pytest.raises(UsageError, match="no item of the catalogue has category 'Garden'"):
            catalogue(goods, popular, **rules)


def test_an_item_is_available_unless_the_catalogue_or_the_config_denies_it(goods):
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


def test_items_without_a_title_can_be_left_out(goods):
    named = goods.withColumn("title", F.when(F.col("item_idx") < 4, F.lit("Thing")))
    assert catalogue(named, np.ones(6), titled_only=True).available.tolist() == [False, True, True, False, False, False]


def test_items_of_denied_categories_are_not_available_and_may_not_be_named(goods):
    found = catalogue(goods, np.ones(6), deny=("e",), deny_categories=("gifts", "Garden"))
    assert found.available.tolist() == [False, False, True, False, True, False]
    assert found.denied.tolist() == [1, 5]
    assert found.may_name(np.array([[1, 2], [5, 0]])).tolist() == [[False, True], [False, True]]
    whole = catalogue(goods, np.ones(6), deny_categories=("gifts", "tools | gifts"), category_separator="")
    assert whole.denied.tolist() == [1], "without a separator a text is one category"
    warned = []
    items.load_catalogue(goods, RecentCounts(np.ones(6)), Topn(deny_categories=("Gifts",)), warned.append)
    assert warned == ["topn.deny_categories: no item of the catalogue has category 'Gifts'"]


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\t", "\u2003"])
def test_blanks_around_a_category_do_not_count_in_spark_or_in_the_scorer(goods, blank):
    spaced = goods.withColumn("category", F.lit(f"wine{blank}|{blank}beer"))
    for name in ("wine", "beer"):
        rules = Topn(categories=(name,))
        shown = catalogue(spaced, np.ones(6), categories=(name,)).narrowed([name], None).available[1:]
        left_out = [row[0] for row in spaced.orderBy("item_idx").select(items.is_left_out(rules, 0.0)).collect()]
        assert left_out == [not each for each in shown]
        assert shown.any()


def test_a_category_that_a_rule_names_counts_wherever_an_item_names_it(goods):
    many = goods.withColumn("category", F.lit("|".join([*(f"tag {k}" for k in range(20)), "alcohol"])))
    groups = [{"name": "young", "when": {}, "deny_categories": ["alcohol"]}]
    found = catalogue(many, np.ones(6), strategies=groups)
    assert not found.narrowed([], None, ["alcohol"]).available.any()
    assert found.categories.shape[1] == 12


def test_a_group_may_deny_categories_of_its_own(goods):
    groups = [{"name": "away", "when": {}, "deny_categories": ["tools"]}]
    found = catalogue(goods, np.ones(6), strategies=groups)
    assert len(found.denied) == 0
    assert found.narrowed([], None, ["tools"]).available.tolist() == [False, False, True, False, True, False]
    assert found.narrowed([], None, ["none of this name"]) is found


def test_items_denied_to_a_group_are_stored_by_index_and_stay_available_to_others(goods):
    groups = [{"name": "away", "when": {}, "deny": ["d", "no such item", "b"]}, {"name": "new", "when": {}}]
    found = catalogue(goods, np.ones(6), strategies=groups)
    assert {name: items.tolist() for name, items in found.denied_to.items()} == {"away": [4, 2]}
    assert found.available.tolist() == [False, True, True, False, True, True]
    assert found.narrowed([], found.denied_to["away"]).available.tolist() == [False, True, False, False, False, True]
    assert found.narrowed(["garden"], None).available.tolist() == [False, False, False, False, True, False]


def test_a_price_comes_from_the_catalogue_or_is_nan(goods):
    priced = goods.withColumn("price", F.when(F.col("item_idx") == 2, F.lit(9.5)))
    np.testing.assert_array_equal(catalogue(priced, np.ones(6)).price, [0, np.nan, 9.5, np.nan, np.nan, np.nan])


def test_items_added_after_the_count_have_popularity_zero(goods):
    found = catalogue(goods, np.array([0.0, 3, 2]))
    assert found.popular.tolist() == [0, 3, 2, 0, 0, 0]
    assert found.by_popularity().tolist() == [1, 2, 4, 5]


def test_popular_items_of_a_category_are_available_and_sorted_by_popularity(goods):
    found = catalogue(goods, np.array([0.0, 1, 9, 9, 5, 7]))
    by_name = dict(zip(found.names, found.popular_in, strict=True))
    assert by_name["tools"].tolist() == [5, 1]
    assert by_name["garden"].tolist() == [4]
    assert by_name["gifts"].tolist() == [1]


def test_the_categories_of_a_history_are_ordered_by_frequency_then_recency(goods):
    found = catalogue(goods, np.ones(6))
    named = lambda items: [found.names[code] for code in found.categories_of(np.array(items))]  # noqa: E731
    assert named([3, 5, 5]) == ["tools", "garden"]
    assert named([5, 4]) == ["garden", "tools"]
    assert named([4, 5, 1]) == ["tools", "gifts", "garden"]
    assert named([2]) == []
    assert named([1]) == ["gifts", "tools"], "of one item's categories the one with fewer items"


def test_categories_are_split_at_the_configured_separator(goods):
    assert catalogue(goods, np.ones(6)).names.tolist() == ["", "garden", "gifts", "tools"]
    assert catalogue(goods, np.ones(6), category_separator="").names.tolist() == [
        "",
        "garden",
        "tools",
        "tools | gifts",
    ]


def test_new_items_are_recent_and_not_part_of_the_first_load(goods):
    found = catalogue(goods, np.ones(6))
    assert np.flatnonzero(found.fresh(7)).tolist() == [4, 5]
    assert np.flatnonzero(found.fresh(3)).tolist() == [5]
    assert np.flatnonzero(found.fresh(90)).tolist() == [4, 5]


def test_an_empty_catalogue_has_nothing_to_show(spark):
    empty = catalogue(spark.createDataFrame([], schemas.ddl("items")), np.zeros(1))
    assert (empty.available.tolist(), empty.by_popularity().tolist()) == ([False], [])
    assert empty.fresh(7).tolist() == [False]


@pytest.mark.parametrize("n_items", [5, items.BROADCAST_LIMIT + 1])
def test_places_get_item_ids_and_titles_with_the_id_as_the_fallback_title(spark, goods, n_items):
    titled = goods.withColumn("title", F.when(F.col("item_idx") == 1, "Axe"))
    listed = spark.createDataFrame([(4, 1), (5, 2), (1, 0)], "item_idx int, because_idx int")
    found = items.with_titles(listed, titled, n_items).orderBy("item_idx").collect()
    assert [(row["item_id"], row["because_title"]) for row in found] == [("a", None), ("d", "Axe"), ("e", "b")]


@pytest.mark.parametrize("n_items", [5, items.BROADCAST_LIMIT + 1])
def test_a_place_with_an_item_missing_from_the_catalogue_fails_the_query(spark, goods, n_items):
    listed = spark.createDataFrame([(4, 1), (6, 0)], "item_idx int, because_idx int")
    with pytest.raises(Exception, match="table items lacks item_idx 6"):
        items.with_titles(listed, goods, n_items).collect()
