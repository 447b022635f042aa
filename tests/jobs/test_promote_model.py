"""The gate as a job, with real tables and models in a real registry; aliases move only with a row that gives the reason."""

import importlib.util
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from headwater import schemas
from headwater.config import Config, Topn
from headwater.errors import ModelError
from headwater.evaluation import gate
from headwater.job import Job
from headwater.models import ModelSpec, build
from headwater.models.transitions import count
from headwater.tables import Warehouse
from headwater.tracking import runs
from headwater.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from headwater.training import artifact

JOBS = Path(__file__).resolve().parent.parent.parent / "jobs"
START = datetime(2025, 1, 1, tzinfo=UTC)
CUT = START + timedelta(days=6)
ITEMS, USERS, LENGTH = 40, 60, 8


def load_job(name):
    spec = importlib.util.spec_from_file_location(name, JOBS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


promote_model, evaluate_model, finetune_model = map(load_job, ("promote_model", "evaluate_model", "finetune_model"))


def item(user, day):
    """Every user walks through the items in order, from a different start."""
    return (user * 7 + day) % ITEMS + 1


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory):
    """A warehouse with one event per user and day, for eight days."""
    root = tmp_path_factory.mktemp("gate")
    warehouse = Warehouse(spark, str(root / "warehouse"), 60)
    events = [
        (f"{user}-{day}", f"u{user}", f"i{item(user, day)}", "view", START + timedelta(days=day, minutes=user))
        for user in range(USERS)
        for day in range(8)
    ]
    rest = dict.fromkeys(schemas.columns("events")[5:]) | {"source": "s", "source_file": "f"}
    rows = [(*event, *({**rest, "event_date": event[4].date()}.values())) for event in events]
    warehouse.append(spark.createDataFrame(rows, schemas.ddl("events")), "events", {"job": "test"})
    goods = [(f"i{k}", k, None, None, None, None, True, START) for k in range(1, ITEMS + 1)]
    warehouse.append(spark.createDataFrame(goods, schemas.ddl("items")), "items", {"job": "test"})
    Registry(Config(paths={"warehouse": warehouse.root})).alias(CHAMPION)  # an empty store, made once for all tests
    return root


@pytest.fixture
def make_job(shop, tmp_path):
    """A function that makes a job on the shop's events, with the test's own registry and audit rows."""

    def make(**gate):
        warehouse = tmp_path / "warehouse"
        if not warehouse.exists():
            warehouse.mkdir()
            for table in ("events", "items"):
                (warehouse / table).symlink_to(shop / "warehouse" / table)
            shutil.copy(shop / "warehouse" / "mlflow.db", warehouse)
        settings = {"min_users": 20, "bootstrap_samples": 200, **gate}
        return Job("promote_model", Config(paths={"warehouse": str(warehouse)}, gate=settings))

    return make


def register(job, folder, knows, **more):
    """Register a model with random weights; with ``knows`` it is blended with the transitions of the walk."""
    spec = ModelSpec("gru", n_items=ITEMS, max_length=LENGTH, dim=8, layers=1, heads=1)
    torch.manual_seed(3 if knows else 4)
    facts = {
        "kind": "gru", "n_items": ITEMS, "max_length": LENGTH, "protocol": "temporal", "seed": 1, "best_epoch": 1,
        "code_revision": "abc", "sequences_version": 0, "events_version": 0, "sequences": USERS,
        "blend": {"transitions": 100.0, "recency": 0.0},
        "train_until": (CUT - timedelta(days=1)).isoformat(), "validation_until": CUT.isoformat(), **more,
    }  # fmt: skip
    walked = np.array([[item(user, day) for day in range(6)] for user in range(USERS)])
    artifact.save(
        folder, build(spec).state_dict(), spec, facts, {"transitions": count(walked, ITEMS)} if knows else None
    )
    return runs.log_training(
        Registry(job.config), job.config, folder, facts, [{"epoch": 1, "loss": 1.0}], "train_model"
    )


def aliases(job):
    registry = Registry(job.config)
    return tuple(registry.alias(name) for name in (CHALLENGER, CHAMPION, PREVIOUS))


def kill_before_alias(name):
    assert name == "promote_model:before_alias"
    raise KeyboardInterrupt


def audit(job):
    rows = job.warehouse.read("promotions").orderBy("decided_at").collect()
    return [(row["action"], row["challenger_version"], row["champion_version"], row["decision"]) for row in rows]


def test_a_better_challenger_becomes_champion_and_a_rollback_restores_the_old_one_for_good(
    make_job, tmp_path, monkeypatch
):
    job = make_job()
    register(job, tmp_path / "bad", knows=False)
    register(job, tmp_path / "good", knows=True)
    assert aliases(job) == (2, 1, None)
    with monkeypatch.context() as killed:
        killed.setattr(promote_model, "failpoint", kill_before_alias)
        with pytest.raises(KeyboardInterrupt):
            promote_model.promote(job)
    assert aliases(job) == (2, 1, None)  # decided and recorded, but not done: the next run does it without a second row

    closing = promote_model.promote(job)
    assert (closing["promoted"], closing["model_version"], closing["users"]) == (True, 2, USERS)
    assert closing["challenger"] > closing["champion"] + 0.2
    assert f"{closing['challenger']:.4f} against {closing['champion']:.4f} of the champion" in closing["reason"]
    assert aliases(job) == (2, 2, 1)

    again = promote_model.promote(make_job())
    assert (again["promoted"], again["reason"]) == (False, "version 2 is the champion already")

    back = promote_model.roll_back(make_job())
    assert back == {"promoted": True, "reason": "rolled back from version 2 to 1", "model_version": 1}
    assert aliases(job) == (2, 1, 1)
    assert promote_model.roll_back(make_job()) == back  # as if killed after the last step
    assert aliases(job) == (2, 1, 1)
    refused = promote_model.promote(make_job())
    assert (refused["promoted"], refused["model_version"]) == (False, 1)
    assert "version 2 was rolled back" in refused["reason"]
    with pytest.raises(ModelError, match="no previous champion to restore"):
        promote_model.roll_back(make_job())
    assert audit(job) == [
        ("promote", 2, 1, "promoted"), ("rollback", 1, 2, "promoted"), ("promote", 2, 1, "refused"),
    ]  # fmt: skip
    details = json.loads(job.warehouse.read("promotions").orderBy("decided_at").first()["details"])
    assert details["metric"] == "ndcg@10"


def test_a_rollback_during_the_comparison_is_not_undone(make_job, tmp_path, monkeypatch):
    job = make_job()
    register(job, tmp_path / "bad", knows=False)
    register(job, tmp_path / "good", knows=True)
    promote_model.promote(job)
    register(job, tmp_path / "better", knows=True)
    decide = gate.decide

    def decide_slowly(*args):
        promote_model.roll_back(make_job())
        return decide(*args)

    monkeypatch.setattr(gate, "decide", decide_slowly)
    with pytest.raises(
        ModelError, match=r"the champion changed from version 2 to 1 during the comparison; run the job"
    ):
        promote_model.promote(make_job())
    assert aliases(job) == (3, 1, 1)
    assert audit(job)[1:] == [("rollback", 1, 2, "promoted")]


def test_feedback_that_a_refused_fine_tune_learned_from_stays_learned_after_another_training(make_job, tmp_path):
    job = make_job()
    register(job, tmp_path / "champion", knows=True)
    learned = {"parent_version": 1, "feedback_until": "2025-01-07T00:00:00+00:00"}
    register(job, tmp_path / "tuned", knows=False, **learned)
    registry = Registry(job.config)
    assert finetune_model.not_yet_judged(job, registry, champion=1) == 2
    assert not promote_model.promote(job)["promoted"]
    register(job, tmp_path / "nightly", knows=False)
    assert finetune_model.learned_until(registry, champion=1) == datetime(2025, 1, 7, tzinfo=UTC)
    assert finetune_model.learned_until(registry, champion=3) is None
    assert finetune_model.not_yet_judged(job, registry, champion=1) is None


def test_a_worse_challenger_is_refused_with_figures_and_the_aliases_stay(make_job, tmp_path):
    job = make_job(must_beat=())
    register(job, tmp_path / "good", knows=True)
    register(job, tmp_path / "bad", knows=False)
    closing = promote_model.promote(job)
    assert (closing["promoted"], closing["model_version"]) == (False, 1)
    assert "worse than the champion" in closing["reason"]
    assert aliases(job) == (2, 1, None)
    assert audit(job) == [("promote", 2, 1, "refused")]

    found = evaluate_model.evaluate(make_job(), None, evaluate_model.Alias.champion)
    assert (found["model_version"], found["users_test"]) == (1, USERS)
    assert found["ndcg"] > max(found[f"ndcg_{name}"] for name in ("popularity", "recent_popularity")) + 0.2
    rows = job.warehouse.read("model_metrics").where(
        "split = 'test' AND metric = 'ndcg' AND k = 10 AND segment = 'all'"
    )
    written = {row["model"]: (row["model_version"], row["beside_version"], row["users"]) for row in rows.collect()}
    assert written == {
        "gru+transitions": (1, 1, USERS), "popularity": (0, 1, USERS), "recent_popularity": (0, 1, USERS),
        "item_transitions": (0, 1, USERS), "sequence_model": (0, 1, USERS), "as_served": (0, 1, USERS),
    }  # fmt: skip
    assert Registry(job.config).history(1)["test_ndcg_10"][0][1] == pytest.approx(found["ndcg"], abs=1e-5)

    allowed = job.config.model_copy(update={"topn": Topn(exclude_seen=False)})
    found = evaluate_model.evaluate(Job("evaluate_model", allowed), None, evaluate_model.Alias.champion)
    assert found["ndcg_own_items"] == 0 < found["ndcg_popularity"]  # in eight days no user repeated an item


def test_too_few_held_out_users_decide_nothing(make_job, tmp_path):
    job = make_job(min_users=1_000)
    register(job, tmp_path / "bad", knows=False)
    register(job, tmp_path / "good", knows=True)
    closing = promote_model.promote(job)
    assert closing["promoted"] is False
    assert f"{USERS} held-out users are too few to decide (gate.min_users 1000)" in closing["reason"]


def test_without_a_challenger_or_a_previous_champion_one_line_says_so(make_job):
    with pytest.raises(ModelError, match=r"no challenger yet; run jobs/train_model\.py first"):
        promote_model.promote(make_job())
    with pytest.raises(ModelError, match="no previous champion to restore"):
        promote_model.roll_back(make_job())
