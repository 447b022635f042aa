"""What a fine-tune takes for known and unknown, with real tables and a champion in a real registry."""

from datetime import timedelta

import numpy as np
import pytest
import torch
from inside import WHEN, InProcessSite
from pyspark.sql import functions as F

from headwater import feedback, schemas
from headwater.models import ModelSpec, build
from headwater.tracking import Registry, runs
from headwater.training import artifact, hybrid
from headwater.training.facts import parse_time

DAY = 24 * 60
ITEMS = "abcdef"


@pytest.fixture
def site(spark, tmp_path):
    """Two people with a history of a day, a list for each at its end, and a champion that has learned all of it."""
    found = InProcessSite(spark, tmp_path / "site", {"finetune": {"min_feedback": 1}})
    found.click("day1.json", *((user, item, k) for user in ("ann", "bob") for k, item in enumerate(ITEMS[:3])))
    found.call("ingest_events", "ingest")
    found.call("build_sequences", "build")
    rows = [
        (user, k + 1, item, 1.0, "", "gru", 1, WHEN, WHEN + timedelta(minutes=10), None)
        for user in ("ann", "bob")
        for k, item in enumerate(ITEMS[3:])
    ]
    found.tables.append(spark.createDataFrame(rows, schemas.ddl("topn_history")), "topn_history", {"job": "score_topn"})
    spec = ModelSpec("gru", n_items=3, max_length=8, dim=8, layers=1, heads=1)
    torch.manual_seed(1)
    until = (WHEN + timedelta(minutes=5)).isoformat()
    facts = {
        "kind": "gru", "n_items": 3, "max_length": 50, "protocol": "temporal", "seed": 1, "best_epoch": 1,
        "code_revision": "abc", "sequences_version": 0, "events_version": 0, "sequences": 2,
        "train_until": until, "validation_until": until, "ingested_until": newest(found),
    }  # fmt: skip
    artifact.save(tmp_path / "champion", build(spec).state_dict(), spec, facts)
    registry = Registry(found.config)
    runs.log_training(registry, found.config, tmp_path / "champion", facts, [{"epoch": 1, "loss": 1.0}], "train_model")
    return found


def newest(site):
    from headwater.sequences import ingested_until

    return ingested_until(site.tables.read("events")).isoformat()


def tune(site, **settings):
    return site.call("finetune_model", "tune", **settings)


def test_feedback_on_events_that_are_yet_to_be_collected_is_for_the_next_fine_tune(site):
    site.click("day2.json", *(("ann", item, DAY + k) for k, item in enumerate(ITEMS[3:])))
    site.call("ingest_events", "ingest")
    site.call("build_sequences", "build")
    assert site.call("collect_feedback", "collect")["rows_feedback"] == 3
    collected_until = newest(site)
    site.click("late.json", ("bob", "d", 20))  # given before what ann did, and ingested after it was collected
    site.call("ingest_events", "ingest")
    tuned = tune(site)
    assert (tuned["model_version"], tuned["feedback_new"]) == (2, 3)
    known = Registry(site.config).facts(2)
    assert known["ingested_until"] == collected_until
    site.call("build_sequences", "build")
    assert site.call("collect_feedback", "collect")["rows_feedback"] == 1
    cuts = (parse_time(known[name]) for name in ("tuned_until", "ingested_until"))
    unknown = feedback.unknown_to_model(site.tables.read("feedback"), site.tables.read("events"), *cuts)
    assert ("bob", "d") in {(row["user_id"], row["item_id"]) for row in unknown.collect()}


def test_a_fine_tune_on_late_feedback_is_tested_on_what_its_champion_has_not_learned(site):
    site.click("late.json", *(("ann", item, k) for k, item in enumerate(ITEMS[3:], start=11)))
    site.call("ingest_events", "ingest")
    site.call("build_sequences", "build")
    site.call("collect_feedback", "collect")
    later = WHEN + timedelta(days=3)
    registry = Registry(site.config)
    folder = registry.download(1)
    model, known = artifact.load(folder)
    known |= {"train_until": later.isoformat(), "validation_until": later.isoformat()}
    artifact.save(site.root / "later", model.state_dict(), model.spec, known)
    version = runs.log_training(registry, site.config, site.root / "later", known, [{"epoch": 1, "loss": 1.0}], "t")
    registry.set_alias("champion", version)
    assert tune(site)["parent_version"] == version
    tuned = registry.facts(version + 1)
    assert tuned["validation_until"] == later.isoformat()
    assert parse_time(tuned["tuned_until"]) < later


def test_a_fine_tune_without_two_events_of_anybody_before_the_held_out_ones_is_skipped(site):
    site.click("day2.json", ("ann", "d", DAY), ("ann", "e", DAY + 1))
    site.call("ingest_events", "ingest")
    site.call("build_sequences", "build")
    site.call("collect_feedback", "collect")
    rows = site.tables.read("sequences")
    arrays = ("item_idx", "event_type", "event_time", "event_id", "value")
    shorter = rows.withColumns({name: F.slice(name, F.size(name), 1) for name in arrays})
    note = site.tables.last_note("sequences", "build_sequences")
    site.tables.overwrite(shorter.localCheckpoint(), "sequences", note)
    closing = tune(site)
    assert (closing["status"], closing["feedback_new"], closing["targets"]) == ("skipped", 2, 0)


def test_the_parts_of_a_hybrid_are_counted_anew_up_to_the_held_out_feedback(site):
    registry = Registry(site.config)
    model, known = artifact.load(registry.download(1))
    known |= {"blend": {"transitions": 1.0, "repeats": 0.5, "recency": 0.0}}
    parts = hybrid.fit_parts(["transitions", "repeats"], np.array([[1, 2, 3]]), 3)
    artifact.save(site.root / "hybrid", model.state_dict(), model.spec, known, parts)
    version = runs.log_training(registry, site.config, site.root / "hybrid", known, [{"epoch": 1, "loss": 1.0}], "t")
    registry.set_alias("champion", version)
    site.click("day2.json", *(("ann", item, DAY + k) for k, item in enumerate("dacebf")))
    site.call("ingest_events", "ingest")
    site.call("build_sequences", "build")
    site.call("collect_feedback", "collect")
    assert tune(site)["parent_version"] == version
    tuned = registry.download(version + 1)
    assert artifact.facts(tuned)["blend"] == known["blend"]
    found = artifact.load_neighbours(tuned)
    index = {row["item_id"]: row["item_idx"] for row in site.tables.read("items").collect()}
    follows, until = found["transitions"].matrix, parse_time(artifact.facts(tuned)["tuned_until"])
    assert list(found) == ["transitions", "repeats"]
    assert follows[index["d"], index["a"]] > 0
    assert until <= WHEN + timedelta(minutes=DAY + 5)
    assert not follows[:, index["f"]].nnz, "f was held out"
    assert found["repeats"].matrix.diagonal().tolist() == [0, *[1] * len(ITEMS)]
