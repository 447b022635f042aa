"""Ranks on Spark executors: they find the package, learn the same as local ranks, and are refused if they cannot run."""

import os
from datetime import UTC, datetime

import pytest
import torch
from pyspark import cloudpickle

from headwater.config import Train
from headwater.errors import HeadwaterError, ModelError
from headwater.models import ModelSpec
from headwater.training import artifact, snapshot, train, worker

SPEC = ModelSpec("gru", n_items=12, max_length=6, dim=16, layers=1, heads=1)
SETTINGS = Train(processes=2, epochs=1, batch_size=8, use_gpu=False, reader="pyarrow", timeout_seconds=60)


@pytest.fixture(scope="module")
def data(spark, tmp_path_factory):
    """One user for two ranks: the second rank has only filler rows, of weight 0."""
    times = [datetime(2025, 1, day, tzinfo=UTC) for day in range(1, 8)]
    one = [("u", [1, 2, 3, 4, 5, 6, 7], ["view"] * 7, times, list("abcdefg"), [None] * 7)]
    ddl = (
        "user_id string, item_idx array<int>, event_type array<string>, event_time array<timestamp>, "
        "event_id array<string>, value array<double>"
    )
    rows = snapshot.training_rows(spark.createDataFrame(one, ddl), 12, 6)
    return snapshot.export(rows, tmp_path_factory.mktemp("data") / "s", {}, 2, 1)


def test_ranks_on_executors_learn_the_same_weights_as_local_ranks(data, tmp_path):
    weights = []
    for local in (True, False):
        settings = SETTINGS.model_copy(update={"local_mode": local})
        answer = train.run(train.plan(data, SPEC, settings, tmp_path / str(local)), settings)
        weights.append(artifact.read_weights(answer["weights"]))
    here, there = weights
    assert here.keys() == there.keys()
    for name, tensor in here.items():
        assert torch.equal(tensor, there[name]), name


def test_unpickling_on_an_executor_makes_the_package_importable_for_its_ranks(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert isinstance(cloudpickle.loads(cloudpickle.dumps(worker.PicklableWork())), worker.PicklableWork)
    package, *rest = os.environ["PYTHONPATH"].split(os.pathsep)
    assert os.path.isfile(os.path.join(package, "headwater", "__init__.py"))
    assert rest == ["/elsewhere"]
    assert os.environ["PYTHONIOENCODING"].startswith("utf-8")


def test_too_few_task_slots_are_an_error_at_once(spark):
    with pytest.raises(
        HeadwaterError, match=r"train\.processes 3 needs as many task slots on executors, but there are only 2"
    ):
        train._need_slots(3, patience=0)


def test_a_snapshot_for_another_number_of_processes_is_refused_before_training(data, tmp_path):
    with pytest.raises(ModelError, match=r"has 2 files, not a multiple of train\.processes 3"):
        train.plan(data, SPEC, SETTINGS.model_copy(update={"processes": 3}), tmp_path)
