"""The whole loop on a small shop, run as by a scheduler, and then once more with nothing new."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import shop
from sites import Site

from headwater.config import load
from headwater.scoring import indexed
from headwater.tracking import Registry
from headwater.training import artifact, facts

STABLE = {
    "events": ("event_id", "user_id", "item_id", "event_time"),
    "items": ("item_id", "item_idx"),
    "sequences": ("user_id", "item_idx", "event_time", "updated_at"),
    "topn": ("user_id", "rank", "item_id", "score", "generated_at"),
    "sections": ("user_id", "section", "rank", "item_id", "heading", "generated_at"),
    "topn_history": ("user_id", "rank", "item_id", "generated_at"),
    "feedback": ("event_id", "rank"),
    "quarantine": ("raw", "reason"),
}


@pytest.fixture(scope="module")
def first_night(tmp_path_factory):
    """A shop after its first night."""
    site = Site(tmp_path_factory.mktemp("loop") / "site", shop.CONFIG)
    shop.write_first_day(site.landing)
    closing = {"ingest": site.run("ingest_events"), "build": site.run("build_sequences")}
    closing["train"] = site.run("train_model", "--set", "train.processes=2")
    closing["evaluate"] = site.run("evaluate_model", "--alias", "champion")
    closing["score"] = site.run("score_topn", "--mode", "full")
    return site, closing


def test_the_first_night_ingests_every_line_and_gives_every_user_a_list(first_night, spark):
    site, closing = first_night
    assert {key: closing["ingest"][key] for key in shop.FIRST_DAY} == shop.FIRST_DAY
    assert closing["ingest"]["rows_catalog"] == 40
    assert closing["build"]["users_changed"] == 60
    assert closing["train"]["model_version"] == 1
    assert closing["score"]["users_scored"] == 60
    lists = site.rows(spark, "topn", "user_id", "rank", "item_id")
    assert len(lists) == 60 * 5
    beside = site.rows(spark, "sections", "user_id", "item_id", "heading")
    assert {user for user, _, _ in beside} == {f"u{k}" for k in range(60)}
    shown = [(user, item) for user, _, item in lists] + [(user, item) for user, item, _ in beside]
    assert len(shown) == len(set(shown))
    assert {heading.split(" Thing")[0] for _, _, heading in beside} >= {"Because you bought", "Because you viewed"}
    bought = {(user, item) for user, item, _ in shop.steps(1, range(0, 20), shop.START)}
    assert not bought & {(user, item) for user, _, item in lists}


def test_the_evaluation_measures_reasons_and_logs_each_segment_to_the_tracker(first_night, spark):
    site, closing = first_night
    rows = site.rows(spark, "model_metrics", "model", "split", "segment", "metric", "k", "value")
    found = {
        metric: value for model, split, _, metric, k, value in rows if (model, split, k) == ("as_served", "test", 5)
    }
    assert found["explained"] > 0.5
    assert found["reason_holds"] >= 0.9 > found["chance_holds"]
    assert closing["evaluate"]["reason_holds"] == round(found["reason_holds"], 4)
    own = {(segment, metric): value for model, split, segment, metric, k, value in rows
           if model.startswith("sasrec") and (split, k) == ("test", 10)}  # fmt: skip
    segment = next(segment for segment, _ in own if segment != "all")
    registry = Registry(load([site.config]))
    for key, name in ((("all", "ndcg"), "test_ndcg_10"), ((segment, "ndcg"), f"test_ndcg_10_{segment}")):
        assert registry.history(1)[name][0][1] == pytest.approx(own[key])
    assert registry.history(1)["test_reason_holds"][0][1] == pytest.approx(found["reason_holds"])


def test_a_version_lists_the_items_that_its_training_had_events_of(first_night, spark):
    site, _ = first_night
    folder = Registry(load([site.config])).download(1)
    until = facts.parse_time(artifact.facts(folder)["train_until"])
    index = dict(site.rows(spark, "items", "item_id", "item_idx"))
    events = site.rows(spark, "events", "item_id", "event_time")
    sold = {index[item] for item, at in events if at.replace(tzinfo=UTC) < until}
    assert set(np.flatnonzero(artifact.trained_items(folder)).tolist()) == {0, *sold}


def test_an_index_that_probes_all_lists_changes_no_list_and_the_job_reports_it(first_night, spark, monkeypatch):
    site, _ = first_night
    monkeypatch.setattr(indexed, "PAYS_ABOVE", 0.0)  # for only sixty users no index would be built
    before = site.rows(spark, "topn", "user_id", "rank", "item_id", "reason")
    closing = site.run("score_topn", "--mode", "full", "--set", "topn.index=faiss")
    assert (closing["index"], closing["recall"], closing["users_changed"]) == ("faiss", 1.0, 0)
    assert site.rows(spark, "topn", "user_id", "rank", "item_id", "reason") == before
    rows = site.rows(spark, "model_metrics", "metric", "model", "split", "k", "value", "users", "beside_version")
    assert [row for row in rows if row[0] == "index_recall"] == [("index_recall", "as_served", "test", 5, 1.0, 60, 1)]


def test_a_second_day_changes_only_users_who_acted_and_a_rerun_changes_nothing(first_night, spark):
    site, _ = first_night
    before, further = site.rows(spark, "topn"), site.rows(spark, "sections")
    changed = shop.write_second_day(site.landing)
    assert site.run("ingest_events")["rows_events"] == 14
    assert site.run("build_sequences")["users_changed"] == len(changed)
    nearline = site.run("score_topn", "--mode", "nearline")
    assert nearline["users_scored"] == len(changed)
    after = site.rows(spark, "topn")
    beside = site.rows(spark, "sections")
    assert [row for row in beside if row[0] not in changed] == [row for row in further if row[0] not in changed]
    assert "new user" in {row[0] for row in beside}
    assert [row for row in after if row[0] not in changed] == [row for row in before if row[0] not in changed]
    assert {row[0] for row in after} == {row[0] for row in before} | {"new user"}
    history = site.rows(spark, "topn_history", "user_id", "rank", "generated_at")
    assert len(history) == len(set(history)) == 2 * 60 * 5 + len(changed) * 5

    tables = {name: site.rows(spark, name, *columns) for name, columns in STABLE.items() if name != "feedback"}
    assert site.run("ingest_events")["rows_in"] == 0
    assert site.run("build_sequences")["users_changed"] == 0
    assert site.run("score_topn", "--mode", "nearline")["users_scored"] == 0
    assert {name: site.rows(spark, name, *columns) for name, columns in STABLE.items() if name != "feedback"} == tables


def test_a_list_of_another_length_replaces_the_current_one(first_night, spark):
    site, _ = first_night
    others = [row for row in site.rows(spark, "topn") if row[0] != "u1"]
    for day, n in enumerate((7, 3, 5), 16):
        lines = [
            shop.api_line(user, "i5", "view", shop.START + timedelta(days=day)) for user in ("u1", f"came for {n}")
        ]
        (site.landing / f"api/day{day}.json").write_text("\n".join(lines) + "\n")
        site.run("ingest_events")
        site.run("build_sequences")
        assert site.run("score_topn", "--mode", "nearline", "--set", f"topn.n={n}")["users_scored"] == 2
        lists = site.rows(spark, "topn", "user_id", "rank", "item_id")
        for user in ("u1", f"came for {n}"):
            ranks, items = zip(*[(rank, item) for whose, rank, item in lists if whose == user], strict=True)
            assert sorted(ranks) == list(range(1, n + 1))
            assert len(set(items)) == n
    assert [row for row in site.rows(spark, "topn") if row[0] != "u1" and not row[0].startswith("came")] == others


def test_feedback_is_attributed_once_and_fine_tunes_a_challenger_that_knows_new_items(first_night, spark):
    site, _ = first_night
    now = datetime.now(UTC) + timedelta(seconds=1)
    shown = [row for row in site.rows(spark, "topn", "user_id", "item_id", "rank") if row[2] <= 2]
    lines = [shop.api_line(user, item, "click", now + timedelta(seconds=k)) for k, (user, item, _) in enumerate(shown)]
    (site.landing / "api/liked.json").write_text("\n".join(lines) + "\n")
    site.run("ingest_events")
    site.run("build_sequences")
    assert site.run("collect_feedback")["rows_feedback"] == len(shown)
    assert site.run("collect_feedback")["rows_feedback"] == 0
    feedback = site.rows(spark, "feedback", "user_id", "item_id", "rank", "model_version", "reward")
    assert feedback == sorted(((user, item, rank, 1, 1.0) for user, item, rank in shown), key=repr)

    skipped = site.run("finetune_model", "--set", "finetune.min_feedback=100000")
    assert skipped["status"] == "skipped"
    nothing = "train.targets={view: 0, search: 0, click: 0, add_to_cart: 0, purchase: 0, rating: 1}"
    without_target = site.run("finetune_model", "--set", nothing)
    assert (without_target["status"], without_target["targets"]) == ("skipped", 0)
    tuned = site.run("finetune_model")
    assert (tuned["status"], tuned["model_version"]) == ("ok", 2)
    again = site.run("finetune_model")
    assert (again["status"], again["feedback_new"], again["model_version"]) == ("ok", 0, 2)  # it waits for the gate
    decision = site.run("promote_model")
    assert decision["model_version"] == (2 if decision["promoted"] else 1)
    decided = ("promote", 2, 1, "promoted" if decision["promoted"] else "refused", decision["reason"])
    columns = ("action", "challenger_version", "champion_version", "decision", "reason")
    assert site.rows(spark, "promotions", *columns) == [decided]
    again = site.run("finetune_model")
    assert (again["status"], again["feedback_new"]) == ("skipped", 0)

    answer = site.run("recommend", "--history", "view:i3 click:i4 purchase:nothing", "--json")
    assert answer["unknown"] == ["nothing"]
    assert len(answer["items"]) == 5
    assert not {"i3", "i4"} & {item["item_id"] for item in answer["items"]}
    report = site.root / "report.html"
    site.run("build_report", "--output", str(report))
    assert "Thing" in report.read_text()
