"""Optimiser steps: sparse updates of the item table, gradient accumulation, the learning rate, the average of rows."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as distributed
from cycle import batch, train_single_rank_in_ddp

from headwater.config import Loss
from headwater.errors import ModelError
from headwater.models import ModelSpec, build
from headwater.training import loop, optimizers, worker
from headwater.training.averages import ExponentialAverage
from headwater.training.settings import Group, Settings

ITEMS = 12
SPEC = ModelSpec("gru", n_items=ITEMS, max_length=6, dim=16, layers=1, heads=1, dropout=0.0)
SAMPLED = Loss(kind="sampled_softmax", negatives=4)
TWO_ITEMS = Loss(kind="bpr", negatives=64, source="batch")
"""With two items the bpr loss does not depend on which negatives are drawn, so ranks and parts can be compared exactly."""
SETTINGS = Settings(
    epochs=3,
    learning_rate=0.01,
    loss=SAMPLED,
    weight_decay=0.0,
    clip_norm=1.0,
    average=0.0,
    patience=9,
    seed=1,
    mixed_precision=False,
    fingerprint="",
    steps=2,
    sparse_items=True,
)
CPU = torch.device("cpu")


def fitted(folder, settings, batches=None, model=None, resume=False, after=lambda: None):
    """Train in this process, by default with two steps per epoch."""
    if model is None:
        torch.manual_seed(1)
        model = build(SPEC)
    batches = batches or [batch(32), batch(16)]
    data = loop.Data(lambda _: batches, torch.ones(ITEMS + 1))
    return loop.fit(model, data, settings, Group.of_one(CPU), folder, resume=resume, after_checkpoint=after)


def test_the_default_step_is_adamw_on_the_clipped_gradient(tmp_path):
    settings = replace(SETTINGS, loss=Loss(kind="softmax"), sparse_items=False, weight_decay=0.1, clip_norm=0.1)
    torch.manual_seed(1)
    plain = build(SPEC)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=settings.learning_rate, weight_decay=0.1, fused=True)
    for rows in [32, 16] * settings.epochs:
        items, context, weights = (torch.from_numpy(values) for values in batch(rows).values())
        loss, weight = plain(items, context, weights)
        optimizer.zero_grad()
        (loss / weight).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), settings.clip_norm)
        optimizer.step()
    found = fitted(tmp_path, settings).weights
    for name, tensor in plain.state_dict().items():
        assert torch.equal(found[name], tensor), name


def test_rows_that_no_step_reads_do_not_change_and_others_are_learned(tmp_path):
    torch.manual_seed(1)
    model = build(SPEC)
    before = model.item.weight.detach().clone()
    settings = replace(SETTINGS, epochs=20, loss=Loss(kind="sampled_softmax", negatives=3, source="batch"))
    found = fitted(tmp_path, settings, [batch(items=9)], model)
    moved = (model.item.weight != before).any(dim=1)
    assert moved.tolist() == [False, *[True] * 9, *[False] * 3]  # padding and items 10 to 12 were never read
    assert found.history[-1]["loss"] < found.history[0]["loss"] / 2


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"average": 0.9}, {"clip_norm": 0.05}])
def test_sparse_steps_that_read_every_item_equal_dense_steps(tmp_path, options):
    rows = fitted(tmp_path / "rows", replace(SETTINGS, **options))
    whole = fitted(tmp_path / "whole", replace(SETTINGS, sparse_items=False, **options))
    assert [entry["loss"] for entry in rows.history] == pytest.approx([entry["loss"] for entry in whole.history])
    for name, tensor in whole.weights.items():
        torch.testing.assert_close(rows.weights[name], tensor, atol=1e-5, rtol=1e-4)


def test_the_first_sparse_step_equals_the_dense_one_even_if_it_reads_only_some_rows(tmp_path):
    """AdamW does not move a row without gradient and moments, so the two differ only from the second step on."""
    few = [batch(items=9)]
    settings = replace(SETTINGS, epochs=1, loss=Loss(kind="bpr", negatives=3, source="batch"))
    rows = fitted(tmp_path / "rows", settings, few)
    whole = fitted(tmp_path / "whole", replace(settings, sparse_items=False), few)
    torch.testing.assert_close(rows.weights["item.weight"], whole.weights["item.weight"])


class Killed(Exception):
    """Raised after the first epoch's checkpoint."""


@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.1},
        {"average": 0.9},
        {"schedule": "cosine", "warmup": 0.3},
        {"schedule": "cosine", "warmup": 0.3, "accumulate": 3, "average": 0.9, "sparse_items": False},
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, options):
    settings = replace(SETTINGS, **options)
    batches = [batch(5), batch(16, items=9)]
    whole = fitted(tmp_path / "whole", settings, batches)

    def kill():
        raise Killed

    with pytest.raises(Killed):
        fitted(tmp_path / "killed", settings, batches, after=kill)
    resumed = fitted(tmp_path / "killed", settings, batches, resume=True)
    assert [entry["loss"] for entry in resumed.history] == [entry["loss"] for entry in whole.history]
    for name, tensor in whole.weights.items():
        assert torch.equal(resumed.weights[name], tensor), name


def test_the_lazy_average_of_unchanged_rows_catches_up_with_the_plain_average():
    """Each step changes two rows of the table; the result equals averaging the whole table at each step."""
    torch.manual_seed(1)
    model = build(SPEC)
    lazy, plain = ExponentialAverage(model, 0.8, sparse_items=True), ExponentialAverage(model, 0.8, sparse_items=False)
    for step in range(6):
        rows = torch.tensor([[1, 2], [2, 3], [2, 4], [5, 2], [1, 5], [4, 5]][step])
        lazy.before_step(rows)
        with torch.no_grad():
            model.item.weight[rows] += torch.randn(2, SPEC.dim)
            model.norm.weight += 1
        lazy.after_step()
        plain.after_step()
    lazy.settle()
    for name, tensor in plain.model.named_parameters():
        torch.testing.assert_close(dict(lazy.model.named_parameters())[name], tensor)
    assert not torch.allclose(lazy.model.item.weight, model.item.weight)


@pytest.mark.parametrize("rows", [48, 47, 2])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_batch_in_parts_gives_the_gradients_of_the_whole_batch(tmp_path, sparse, rows):
    """Event weights differ, so the parts have different total weights; with two rows the third part is empty. Negatives
    are drawn anew for each part."""
    one = batch(rows, items=2 if sparse else ITEMS)
    one["weight"] = np.random.default_rng(1).random(one["item"].shape, dtype=np.float32)
    settings = replace(
        SETTINGS, epochs=1, loss=TWO_ITEMS if sparse else Loss(kind="softmax"), sparse_items=sparse, clip_norm=1e9
    )
    gradients = {}
    for parts in (1, 2, 3):
        torch.manual_seed(1)
        model = build(SPEC)
        found = fitted(tmp_path / str(parts), replace(settings, accumulate=parts), [one], model)
        gradients[parts] = {name: each.grad.to_dense() for name, each in model.named_parameters()}
        assert found.history[0]["sequences"] == rows
        for name, gradient in gradients[1].items():
            torch.testing.assert_close(gradients[parts][name], gradient, atol=1e-6, rtol=1e-4)
    assert gradients[1]["item.weight"].norm() > 0.01


def train_a_rank(rank, folder, settings):
    """One of two ranks, which trains on every second row of the batch."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(1)
    model = build(SPEC)
    wrapped, group = worker.wrap_ddp(model, settings, rank, 2, CPU)
    half = {name: values[rank::2] for name, values in batch(47, items=2).items()}
    loop.fit(
        model, loop.Data(lambda _: [half], torch.ones(ITEMS + 1)), settings, group, folder / "run", wrapped=wrapped
    )
    torch.save(model.state_dict(), folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("parts", [1, 2])
def test_two_ranks_learn_the_same_weights_as_one(tmp_path, monkeypatch, parts):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    settings = replace(SETTINGS, loss=TWO_ITEMS, accumulate=parts, average=0.5)
    torch.multiprocessing.spawn(train_a_rank, (tmp_path, settings), nprocs=2)
    torch.manual_seed(1)
    model = build(SPEC)
    fitted(tmp_path / "one", replace(settings, accumulate=1), [batch(47, items=2)], model)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, tensor in model.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_rank_inside_ddp_learns_the_same_weights_as_without_ddp(tmp_path, monkeypatch, sparse):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    settings = replace(SETTINGS, sparse_items=sparse, accumulate=2)
    inside = train_single_rank_in_ddp(tmp_path, SPEC, settings, [batch(32), batch(16)])
    without = fitted(tmp_path / "without", settings)
    for name, tensor in without.weights.items():
        torch.testing.assert_close(inside.weights[name], tensor, msg=name)


def meet_a_nan(rank, folder, where):
    """One of two ranks; the loss of the second, or only its gradient, is NaN. Each rank writes its error to a file."""
    torch.set_num_threads(1)
    patience = timedelta(seconds=60)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=patience
    )
    model = build(SPEC)
    wrapped, group = worker.wrap_ddp(model, SETTINGS, rank, 2, CPU)
    if rank == 1 and where == "loss":
        model.norm.weight.data.fill_(torch.nan)
    if rank == 1 and where == "gradient":
        model.norm.weight.register_hook(lambda gradient: gradient * torch.nan)
    data = loop.Data(lambda _: [batch()], torch.ones(ITEMS + 1))
    try:
        loop.fit(model, data, SETTINGS, group, folder / "run", wrapped=wrapped)
    except ModelError as error:
        (folder / f"{rank}.txt").write_text(str(error))
    distributed.destroy_process_group()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_nan_on_one_rank_stops_all_ranks_with_the_same_error(tmp_path, monkeypatch, where):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(meet_a_nan, (tmp_path, where), nprocs=2)
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert said == [f"the {where} is no longer finite in epoch 1; lower train.learning_rate"] * 2
    assert not (tmp_path / "run").exists()  # no checkpoint, and nothing to resume from


def test_a_training_that_became_nan_keeps_the_previous_checkpoint_and_resumes_from_it(tmp_path):
    whole = fitted(tmp_path / "whole", SETTINGS)
    torch.manual_seed(1)
    model, epochs = build(SPEC), []

    def break_in_the_second():
        model.norm.weight.data.fill_(torch.nan)

    with pytest.raises(ModelError, match="the loss is no longer finite in epoch 2"):
        fitted(tmp_path / "broken", SETTINGS, model=model, after=break_in_the_second)
    assert [path.name for path in (tmp_path / "broken").glob("*.safetensors")] == ["epoch-00001.safetensors"]
    resumed = fitted(tmp_path / "broken", SETTINGS, resume=True, after=lambda: epochs.append(len(epochs)))
    assert len(epochs) == 2
    for name, tensor in whole.weights.items():
        assert torch.equal(resumed.weights[name], tensor), name


def test_the_learning_rate_rises_and_falls():
    settings = replace(SETTINGS, epochs=5, steps=2, learning_rate=0.1, schedule="cosine", warmup=0.2)
    rates = [optimizers.learning_rate(settings, step) for step in range(10)]
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert rates[6] == pytest.approx(0.05)  # half of the eight steps after warmup
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[9] < 0.005
    constant = replace(settings, schedule="constant", warmup=0.0)
    assert {optimizers.learning_rate(constant, step) for step in range(10)} == {0.1}
