"""Training through TorchDistributor with real ranks: same seed, same loss; one rank and two agree; resume; artifacts."""

import numpy as np
import pytest
import torch
from cycle import write_snapshot
from pyspark.errors import PythonException

from headwater import device, job, local
from headwater.config import Loss, Train
from headwater.errors import DivergenceError, HeadwaterError, ModelError
from headwater.models import ModelSpec, build
from headwater.training import artifact, checkpoints, grow, loop, readers, train
from headwater.training.settings import Group, Settings
from headwater.training.snapshot import Snapshot

SPEC = ModelSpec("sasrec", n_items=12, max_length=6, dim=16, layers=1, heads=1, dropout=0.1)


def trained(tmp_path, name, processes=1, resume=False, epochs=3, batch_size=16, **settings):
    folder = tmp_path / f"snapshot{processes}"
    data = Snapshot.open(folder) if folder.exists() else write_snapshot(folder, processes)
    config = Train(
        processes=processes, epochs=epochs, batch_size=batch_size, use_gpu=False, timeout_seconds=60, **settings
    )
    answer = train.run(train.plan(data, SPEC, config, tmp_path / name, resume=resume), config)
    return answer, artifact.read_weights(answer["weights"])


@pytest.mark.parametrize("options", [{}, {"average": 0.9, "loss": Loss(kind="sampled_softmax", source="popular")}])
def test_the_same_seed_gives_the_same_weights_and_a_resumed_run_too(spark, tmp_path, options):
    whole, weights = trained(tmp_path, "whole", **options)
    again, same = trained(tmp_path, "again", **options)
    assert [entry["loss"] for entry in whole["history"]] == [entry["loss"] for entry in again["history"]]
    assert whole["history"][-1]["loss"] < whole["history"][0]["loss"]
    newest = sorted((tmp_path / "again/checkpoints").glob("epoch-*"))[-2:]
    for path in newest:
        path.unlink()  # as if it had been killed before the last epoch was saved
    _, resumed = trained(tmp_path, "again", resume=True, **options)
    for name, tensor in weights.items():
        assert torch.equal(tensor, same[name]), name
        assert torch.equal(tensor, resumed[name]), name


def test_the_plan_names_the_loss_that_the_default_stands_for():
    few, many = (Settings.of(Train(), n_items, steps=1) for n_items in (20_000, 200_000))
    assert (few.loss.kind, few.sparse_items) == ("softmax", False)
    assert (many.loss.kind, many.sparse_items) == ("sampled_softmax", True)


@pytest.mark.parametrize(
    "options", [{}, {"loss": Loss(kind="sampled_softmax", negatives=64), "sparse_items": True, "accumulate": 2}]
)
def test_two_ranks_agree_with_one_within_five_percent_of_the_loss(spark, tmp_path, options):
    """Batches contain other rows and dropout masks differ, so the losses agree but are not equal."""
    one, _ = trained(tmp_path, "one", epochs=4, **options)
    two, _ = trained(tmp_path, "two", processes=2, epochs=4, **options)
    assert two["history"][0]["sequences"] == one["history"][0]["sequences"] == 48
    assert two["history"][-1]["loss"] == pytest.approx(one["history"][-1]["loss"], rel=0.05)


def fitted(tmp_path, validate=None, batches=1, **options):
    """Train in this process, without ranks, with ``batches`` steps per epoch."""
    torch.manual_seed(1)
    model = build(SPEC)
    settings = {
        "epochs": 3,
        "learning_rate": 0.01,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "average": 0.0,
        "patience": 9,
    }
    settings |= {"loss": Loss(kind="softmax"), "seed": 1, "mixed_precision": False, "fingerprint": ""}
    settings = Settings(**settings | options)
    items = (np.arange(48)[:, None] + np.arange(7)) % 12 + 1
    batch = {"item": items, "context": np.ones_like(items), "weight": np.ones(items.shape, np.float32)}
    group = Group.of_one(torch.device("cpu"))
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    return loop.fit(model, loop.Data(lambda _: [batch] * batches, torch.zeros(13), validate), settings, group, folder)


def test_the_kept_weights_are_the_moving_average(tmp_path):
    """With a decay of one half, the average at step n is half of the previous average plus half of the weights at step n."""
    one, two, three = (fitted(tmp_path, epochs=epochs).weights["item.weight"] for epochs in (1, 2, 3))
    averaged = fitted(tmp_path, average=0.5).weights["item.weight"]
    torch.testing.assert_close(averaged, one / 4 + two / 4 + three / 2)
    assert not torch.allclose(averaged, three)


def test_a_long_epoch_reports_its_steps_its_mean_loss_and_the_time_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)
    (entry,) = fitted(tmp_path, batches=4, epochs=1, steps=4).history
    first, *reports, last = capsys.readouterr().out.splitlines()
    assert first == "at most 1 epochs of 4 steps: softmax over 12 items, on cpu"
    assert [line.split(", loss")[0] for line in reports] == [f"epoch 1: {done} of 4 steps" for done in (1, 2, 3)]
    assert all(line.endswith(" s left") for line in reports)
    means = [float(line.split("loss ")[1].split(",")[0]) for line in reports]
    assert means == sorted(means, reverse=True)
    assert means[-1] > entry["loss"]
    assert last.startswith("epoch 1/1: ")


def test_training_stops_once_patience_is_over_and_keeps_the_best_epoch(tmp_path):
    """Of two equally good epochs the first is kept, and training stops before the fifth, which would be better."""
    judged = iter([0.1, 0.3, 0.3, 0.2, 0.9])
    stopped = fitted(tmp_path, lambda _: next(judged), epochs=5, patience=2)
    assert [entry["epoch_ndcg_10"] for entry in stopped.history] == [0.1, 0.3, 0.3, 0.2]
    assert stopped.best_epoch == 2
    two, four = (fitted(tmp_path, epochs=epochs).weights for epochs in (2, 4))
    for name, tensor in stopped.weights.items():
        assert torch.equal(tensor, two[name]), name
    assert not torch.equal(stopped.weights["item.weight"], four["item.weight"])


def test_the_validated_weights_are_the_average_that_is_kept(tmp_path):
    judged = []

    def validate(model):
        judged.append(model.item.weight.detach().clone())
        return float(len(judged) == 2)

    found = fitted(tmp_path, validate, average=0.5)
    assert found.best_epoch == 2
    assert torch.equal(found.weights["item.weight"], judged[1])
    assert not torch.equal(judged[1], fitted(tmp_path, epochs=2).weights["item.weight"])


def test_the_items_of_a_training_are_those_of_its_sequences():
    found = readers.items_in(np.array([[0, 3, 1], [0, 0, 3]], dtype=np.int32), 4)
    assert found.tolist() == [True, True, False, True, False]
    assert readers.items_in(np.empty((0, 3), np.int32), 1).tolist() == [True, False]


def test_an_unknown_item_index_is_an_error_and_is_not_taken_for_the_mask_token(spark, tmp_path):
    spec = ModelSpec("bert4rec", n_items=11, max_length=6, dim=16, layers=1, heads=1)
    settings = Train(processes=1, epochs=1, use_gpu=False, timeout_seconds=60)
    plan = train.plan(write_snapshot(tmp_path / "snapshot", 1), spec, settings, tmp_path / "run")
    with pytest.raises(
        ModelError, match=r"^training failed: training snapshot file \S+ holds item index 12, but the model"
    ):
        train.run(plan, settings)


def test_a_loss_that_is_not_finite_ends_training_with_one_line(spark, tmp_path):
    with pytest.raises(DivergenceError, match=r"the loss is no longer finite in epoch \d+; lower train.learning_rate"):
        trained(tmp_path, "exploding", learning_rate=1e30, clip_norm=1e30)


def test_a_damaged_checkpoint_falls_back_to_the_previous_one_and_without_one_is_an_error(tmp_path):
    for epoch in (1, 2):
        checkpoints.write(
            tmp_path, epoch, {"model.a": torch.full((2,), float(epoch))}, {"fingerprint": "f", "epoch": epoch}
        )
    newest = tmp_path / "epoch-00002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    tensors, state = checkpoints.read_newest(tmp_path, "f")
    assert (tensors["model.a"].tolist(), state["epoch"]) == ([1.0, 1.0], 1)
    with pytest.raises(ModelError, match="belongs to another configuration"):
        checkpoints.read_newest(tmp_path, "g")
    (tmp_path / "epoch-00001.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="are damaged"):
        checkpoints.read_newest(tmp_path, "f")


def test_a_kill_before_the_first_digest_leaves_no_checkpoint(tmp_path):
    checkpoints.write(tmp_path, 1, {"model.a": torch.ones(2)}, {"fingerprint": "f", "epoch": 1})
    (tmp_path / "epoch-00001.sha256").unlink()
    assert checkpoints.read_newest(tmp_path, "f") is None


@pytest.mark.parametrize(
    ("asked", "gpus", "processes", "local", "answer"),
    [("auto", 0, 1, True, False), ("auto", 1, 1, True, True), ("auto", 1, 2, True, False), ("auto", 1, 2, False, True),
     (True, 2, 2, True, True), (False, 2, 2, True, False)],
)  # fmt: skip
def test_ranks_of_one_machine_have_a_gpu_each_or_none(monkeypatch, asked, gpus, processes, local, answer):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert train.uses_gpus(Train(processes=processes, use_gpu=asked, local_mode=local)) is answer


def test_more_ranks_than_gpus_with_use_gpu_is_a_one_line_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        HeadwaterError, match=r"train.processes 2 with train.use_gpu needs as many GPUs, but there are only 1"
    ):
        train.uses_gpus(Train(processes=2, use_gpu=True))


def test_use_gpu_without_a_gpu_is_a_one_line_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HeadwaterError, match="use_gpu is true, but this machine has no GPU"):
        device.on_gpu(True)
    assert not device.on_gpu("auto")
    assert train.uses_gpus(Train(use_gpu=True, local_mode=False))  # the GPUs of executors cannot be seen from here


def test_an_error_raised_on_a_spark_worker_is_reported_with_its_own_message(spark):
    def refuse(parts):
        raise HeadwaterError("no GPU on this machine")

    with pytest.raises(PythonException) as raised:
        spark.range(1).mapInPandas(refuse, "id long").collect()
    assert job._explain(raised.value) == "no GPU on this machine"


def test_ranks_share_the_cores_that_this_process_may_use(monkeypatch, tmp_path):
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    planned = train.plan(write_snapshot(tmp_path / "s", 2), SPEC, Train(processes=2, use_gpu=False), tmp_path / "run")
    assert planned.threads == 3


def saved(folder):
    model = build(SPEC)
    artifact.save(folder, model.state_dict(), SPEC, {"seed": 1})
    return model


def test_a_model_folder_is_loaded_as_it_was_written(tmp_path):
    model = saved(tmp_path / "m")
    loaded, facts = artifact.load(tmp_path / "m")
    assert facts == {"seed": 1}
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", [artifact.WEIGHTS, artifact.SPEC])
def test_a_file_with_one_flipped_byte_is_named(tmp_path, name):
    saved(tmp_path / "m")
    path = tmp_path / "m" / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelError, match=f"{name} is missing or damaged"):
        artifact.load(tmp_path / "m")


def test_weights_of_another_shape_or_not_finite_are_refused(tmp_path):
    model = saved(tmp_path / "m")
    weights = {**model.state_dict(), "item.weight": torch.zeros(3, 16)}
    artifact.save(tmp_path / "shape", weights, SPEC, {})
    with pytest.raises(ModelError, match="cannot be opened"):
        artifact.load(tmp_path / "shape")
    weights = {**model.state_dict(), "item.weight": torch.full_like(model.item.weight, float("nan"))}
    artifact.save(tmp_path / "nan", weights, SPEC, {})
    with pytest.raises(ModelError, match=r"tensor item\.weight holds values that are not finite"):
        artifact.load(tmp_path / "nan")


def test_a_model_whose_scores_are_not_finite_is_refused_before_registration(tmp_path):
    model = build(SPEC)
    artifact.save(tmp_path / "sound", model.state_dict(), SPEC, {})
    artifact.smoke_test(tmp_path / "sound")
    huge = {name: tensor * 1e25 for name, tensor in model.state_dict().items()}
    artifact.save(tmp_path / "huge", huge, SPEC, {})
    with pytest.raises(ModelError, match=r"scores of the trained model are not finite; lower train\.learning_rate"):
        artifact.smoke_test(tmp_path / "huge")


@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
def test_a_grown_model_keeps_its_items_and_loads(kind):
    spec = ModelSpec(kind, n_items=12, max_length=6, dim=16, layers=1, heads=1)
    model = build(spec)
    weights, grown = grow.grow(model.state_dict(), spec, 15, seed=1)
    larger = build(grown)
    larger.load_state_dict(weights)
    assert torch.equal(larger.item_matrix()[:13], model.item_matrix())
    assert torch.equal(larger.item.weight[-1], model.item.weight[-1]) is (kind == "bert4rec")
    assert grow.grow(weights, grown, 15, seed=1)[1] is grown
