"""Rules of `topn` from the config to the tables: items that leave all lists, groups with their own metrics, explored places with
their propensities."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import shop
from sites import copy_of


def with_rules(trained, tmp_path, **rules):
    return copy_of(trained, tmp_path / "site", topn={**shop.CONFIG["topn"], **rules})


def test_a_sold_out_item_leaves_all_lists_in_the_next_round_and_only_those_are_remade(trained, tmp_path, spark):
    site = copy_of(trained, tmp_path / "site")
    before = {table: site.rows(spark, table, "user_id", "item_id") for table in ("topn", "sections")}
    holders = {user for rows in before.values() for user, item in rows if item == "i7"}
    another = next(user for user, _ in before["topn"] if user not in holders)
    assert 0 < len(holders) < 60
    (site.landing / "catalog/later.csv").write_text("sku,name,available\ni7,Thing 7,0\n")
    (site.landing / "api/day2.json").write_text(
        shop.api_line(another, "i1", "view", shop.START + timedelta(days=15)) + "\n"
    )
    assert site.run("nearline", "--once")["users_scored"] == len(holders) + 1
    for table in before:
        assert "i7" not in {item for _, item in site.rows(spark, table, "user_id", "item_id")}
    (site.landing / "catalog/price.csv").write_text("sku,name,price\ni8,Thing 8,1\n")
    assert site.run("nearline", "--once")["users_scored"] == 0


@pytest.mark.parametrize(
    "rule", [{"deny": ["i7"]}, {"strategies": [{"name": "everybody", "when": {}, "deny": ["i7"]}]}]
)
def test_a_denied_item_leaves_all_lists_in_the_next_round(trained, tmp_path, spark, rule):
    site = copy_of(trained, tmp_path / "site", topn={**shop.CONFIG["topn"], **rule})
    tables = ("topn", "sections")
    holders = {user for table in tables for user, item in site.rows(spark, table, "user_id", "item_id") if item == "i7"}
    assert 0 < len(holders) < 60
    assert site.run("nearline", "--once")["users_scored"] == len(holders)
    for table in tables:
        assert "i7" not in {item for _, item in site.rows(spark, table, "user_id", "item_id")}
    assert site.run("score_topn", "--mode", "nearline")["users_scored"] == 0


@pytest.mark.parametrize(
    "rule", [{"categories": ["kind 0", "kind 1", "kind 2", "kind 3"]}, {"deny_categories": ["for adults"]}]
)
def test_an_item_that_moves_to_a_category_which_a_group_does_not_see_leaves_its_lists(trained, tmp_path, spark, rule):
    groups = [{"name": "young", "when": {"category": "kind 1", "min_share": 0.26}, **rule}]
    site = copy_of(trained, tmp_path / "site", topn={**shop.CONFIG["topn"], "strategies": groups})
    (site.landing / "catalog/a.csv").write_text("sku,name,category\ni1,Thing 1,for adults\n")
    site.run("ingest_events")
    site.run("score_topn", "--mode", "full")
    young = {
        user for user, strategy in site.rows(spark, "topn", "user_id", "strategy") if strategy.startswith("young: ")
    }
    assert 0 < len(young) < 60

    def holders(item):
        tables = (site.rows(spark, table, "user_id", "item_id") for table in ("topn", "sections"))
        return {user for rows in tables for user, listed in rows if listed == item}

    item = next(f"i{k}" for k in range(2, 40) if holders(f"i{k}") & young and holders(f"i{k}") - young)
    others = holders(item) - young
    (site.landing / "catalog/b.csv").write_text(f"sku,name,category\n{item},Thing,for adults\n")
    site.run("nearline", "--once")
    assert holders(item) == others
    everybody = json.dumps([{**groups[0], "when": {}}])
    site.run("score_topn", "--mode", "nearline", "--set", f"topn.strategies={everybody}")
    assert not holders(item)


def test_items_that_become_too_old_leave_all_lists_in_the_next_round(trained, tmp_path, spark):
    site = copy_of(trained, tmp_path / "site", topn={**shop.CONFIG["topn"], "max_age_days": 17})
    site.run("score_topn", "--mode", "full")
    tables = ("topn", "sections")
    assert all("i7" in {item for _, item in site.rows(spark, table, "user_id", "item_id")} for table in tables)
    (site.landing / "api/new.json").write_text(
        shop.api_line("u1", "brand-new", "view", shop.START + timedelta(days=19.5)) + "\n"
    )
    assert site.run("nearline", "--once")["users_scored"] > 30
    for table in tables:
        assert {item for _, item in site.rows(spark, table, "user_id", "item_id")} <= {"brand-new"}
    commits = {table: site.commits(table) for table in ("topn", "topn_history")}
    assert site.run("nearline", "--once")["users_scored"] == 0
    assert commits == {table: site.commits(table) for table in commits}


def test_groups_of_users_have_their_own_metrics_measured_on_served_lists(trained, tmp_path, spark):
    groups = [{"name": "few", "when": {"max_events": 9}}, {"name": "many", "when": {"min_events": 10}}]
    site = with_rules(trained, tmp_path, strategies=groups)
    site.run("evaluate_model")
    columns = ("segment", "metric", "model", "split", "k", "users", "value")
    rows = [row for row in site.rows(spark, "model_metrics", *columns) if row[3:5] == ("test", 5)]
    served = {(segment, metric): (users, value) for segment, metric, model, _, _, users, value in rows
              if model == "as_served"}  # fmt: skip
    assert {segment for segment, _, model, *_ in rows if model != "as_served"}.isdisjoint({"group few", "group many"})
    for metric in ("ndcg", "hit_rate", "mrr", "coverage", "novelty", "diversity"):
        assert {("group few", metric), ("group many", metric)} <= set(served)
    few, many, everybody = (served[segment, "ndcg"] for segment in ("group few", "group many", "all"))
    assert 0 < few[0] < few[0] + many[0] == everybody[0]
    assert abs(few[0] * few[1] + many[0] * many[1] - everybody[0] * everybody[1]) < 1e-9


def test_the_propensity_of_an_explored_place_reaches_the_feedback_on_it(trained, tmp_path, spark):
    """All items of this shop have few enough events to be explored; one group of users has no explored places."""
    plain = {"name": "plain", "when": {"category": "kind 1", "min_share": 0.3}, "explore": {"share": 0}}
    site = with_rules(trained, tmp_path, explore={"share": 0.3, "events": 1000.0}, strategies=[plain])
    before = len(site.rows(spark, "topn_history"))
    site.run("score_topn", "--mode", "full")
    topn = site.rows(spark, "topn", "user_id", "item_id", "rank", "strategy", "propensity")
    published = site.rows(spark, "topn_history", "user_id", "item_id", "rank", "strategy", "propensity")
    assert len(published) == before + len(topn)
    assert set(topn) <= set(published)
    drawn = {(user, item): odds for user, item, _, strategy, odds in topn if strategy == "explore"}
    own = [odds for _, _, rank, strategy, odds in topn if strategy != "explore" and ": " not in strategy]
    assert len(drawn) > 20
    assert all(0 < odds < 1 for odds in drawn.values())
    assert {1.0} < set(own) <= {0.5, 1.0}, "the places before, and one that is drawn in every second list"
    in_group = [odds for *_, strategy, odds in topn if strategy.startswith("plain: ")]
    assert in_group
    assert set(in_group) == {None}

    now = datetime.now(UTC) + timedelta(seconds=1)
    clicks = [shop.api_line(user, item, "click", now) for user, item in drawn]
    (site.landing / "api/clicked.json").write_text("\n".join(clicks) + "\n")
    site.run("ingest_events")
    site.run("collect_feedback")
    found = site.rows(spark, "feedback", "user_id", "item_id", "propensity")
    assert {(user, item): odds for user, item, odds in found} == drawn
