"""Rules of `topn` from the config to the tables: groups with their own metrics, explored places with their propensities."""

from datetime import UTC, datetime, timedelta

import shop
from sites import copy_of


def with_rules(trained, tmp_path, **rules):
    return copy_of(trained, tmp_path / "site", topn={**shop.CONFIG["topn"], **rules})


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
