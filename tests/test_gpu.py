"""A GPU agrees with the CPU: the kernel, encoders, losses, validation, and a real rank with NCCL. Skipped without a GPU."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from cycle import batch, train_single_rank_in_ddp, write_snapshot

from headwater import models
from headwater.config import Loss, Topn, Train
from headwater.models import ModelSpec
from headwater.models.losses import Objective
from headwater.models.ranker import Ranker
from headwater.models.transitions import count
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.kernel import Pairs, top_n, top_n_rescored
from headwater.scoring.scorer import Scorer
from headwater.training import artifact, train
from headwater.training.settings import Settings
from headwater.training.snapshot import Snapshot
from headwater.training.validation import Cases, mean_ndcg

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
ITEMS = 300


def pairs(cells, device, values=None):
    return Pairs(*(part.to(device) for part in cells), None if values is None else values.to(device))


@pytest.mark.parametrize("rank", [top_n, top_n_rescored])
def test_lists_on_the_gpu_equal_those_on_the_cpu_including_ties(rank):
    """Vectors are small integers: every product is exact in any precision, and there are many ties."""
    draws = torch.Generator().manual_seed(1)
    users = torch.randint(-3, 4, (700, 16), generator=draws).float()
    items = torch.randint(-3, 4, (30_000, 16), generator=draws).float()
    many = torch.arange(700).repeat_interleave(3)
    cells = (many, torch.randint(30_000, (3,), generator=draws).repeat(700) + many)
    values = torch.randint(-9, 90, (2_100,), generator=draws).float()
    left_out = (many[::2], cells[1][::2])
    expected = top_n(users, items, 10, pairs(left_out, CPU), pairs(cells, CPU, values))
    found = rank(users.to(GPU), items.to(GPU), 10, pairs(left_out, GPU), pairs(cells, GPU, values))
    assert torch.equal(found[0].cpu(), expected[0])
    assert torch.equal(found[1].cpu(), expected[1])


def histories(rows=40, length=9):
    draws = torch.Generator().manual_seed(2)
    items = torch.randint(1, ITEMS + 1, (rows, length), generator=draws)
    items[torch.arange(length) < torch.randint(length - 2, (rows, 1), generator=draws)] = 0  # padding on the left
    return items, (items > 0).long()


def built(kind, device, **options):
    torch.manual_seed(3)
    spec = ModelSpec(kind, ITEMS, 8, dim=32, layers=2, heads=2, dropout=0.0, **options)
    return models.build(spec).to(device)


@pytest.mark.parametrize("kind", sorted(models.ENCODERS))
@pytest.mark.parametrize(
    "loss", [Loss(kind="softmax"), Loss(kind="sampled_softmax", negatives=32)], ids=lambda loss: loss.kind
)
def test_states_losses_and_gradients_are_the_same_on_gpu_and_cpu(kind, loss, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # TF32 would round recurrent layers to ten bits
    found = []
    for device in (CPU, GPU):
        model = built(kind, device)
        items, context = (part.to(device) for part in histories())
        counts = torch.ones(ITEMS + 1, device=device)
        total, weight = model.loss(items, context, None, Objective(loss, counts, torch.Generator().manual_seed(5)))
        total.backward()
        gradients = {name: each.grad.cpu() for name, each in model.named_parameters() if each.grad is not None}
        vectors = model.user_vectors(items[:, 1:], context[:, 1:]).detach().cpu()
        found.append((total.detach().cpu(), weight.cpu(), gradients, vectors))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


def test_a_scorer_gives_the_same_lists_on_gpu_and_cpu():
    """A model over 300 items, blended with transitions; a third of the users have no history, and seen items are excluded."""
    items, context = (part.numpy() for part in histories(90))
    items[::3], context[::3] = 0, 0
    seen = [np.unique(row[row > 0]).astype(np.int32) for row in items]
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"user_id": [f"u{k}" for k in range(90)], "item_idx": [row[row > 0] for row in items]})
    frame["event_type"] = [np.array(["view"] * len(row), dtype=object) for row in frame["item_idx"]]
    frame["at"] = [np.arange(len(row)) * 86_400.0 for row in frame["item_idx"]]
    frame["value"] = [np.full(len(row), np.nan) for row in frame["item_idx"]]
    frame["seen_items"] = seen
    popular = np.concatenate([[0.0], rng.permutation(ITEMS) + 1.0])
    known = Catalogue(popular > 0, popular, np.zeros((ITEMS + 1, 1), np.int32), np.zeros(ITEMS + 1), np.array([""]))
    facts, followed = {"blend": {"transitions": 3.0, "recency": 0.1}}, count(items, ITEMS)
    found = []
    for use_gpu in (False, True):
        ranker = Ranker(built("sasrec", CPU, context=("event_type",)), facts, {"transitions": followed})
        found.append(Scorer(ranker, known, Topn(use_gpu=use_gpu)).lists(frame))
    assert len(found[0]) == 900
    exact = [column for column in found[0].columns if column != "score"]
    pd.testing.assert_frame_equal(found[1][exact], found[0][exact])
    np.testing.assert_allclose(found[1]["score"], found[0]["score"], atol=1e-4)


def test_validation_gives_the_same_ndcg_on_gpu_and_cpu():
    items, context = (part.numpy() for part in histories())
    start = np.arange(len(items) + 1)
    prior = np.linspace(0, 1, ITEMS + 1, dtype=np.float32)
    cases = Cases(items[:, :-1], context[:, :-1], start, items[:, -2], start, items[:, -1], prior)
    judged = [mean_ndcg(built("sasrec", device), cases, device) for device in (CPU, GPU)]
    assert judged[1] == pytest.approx(judged[0], abs=1e-6)


SPEC = ModelSpec("sasrec", n_items=12, max_length=6, dim=16, layers=1, heads=1, dropout=0.1)


def trained(tmp_path, name, use_gpu, resume=False, **options):
    """Train one rank in its own process; returns its losses and weights."""
    folder = tmp_path / "snapshot"
    data = Snapshot.open(folder) if folder.exists() else write_snapshot(folder, 1)
    options = {"epochs": 40, "batch_size": 16, "learning_rate": 0.01, "reader": "pyarrow"} | options
    settings = Train(processes=1, use_gpu=use_gpu, timeout_seconds=60, **options)
    plan = train.plan(data, SPEC, settings, tmp_path / name, resume=resume)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    work = "import json, sys; from headwater.training import worker; print(json.dumps(worker.work(sys.stdin.read())))"
    ended = subprocess.run(
        [sys.executable, "-c", work], input=plan.to_json(), capture_output=True, text=True, env=os.environ | alone
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    answer = json.loads(ended.stdout.splitlines()[-1])
    return [entry["loss"] for entry in answer["history"]], artifact.read_weights(answer["weights"])


SAMPLED = Loss(kind="sampled_softmax", negatives=6)


@pytest.mark.parametrize(
    "options",
    [
        {"mixed_precision": False},
        {"mixed_precision": True, "average": 0.9, "accumulate": 2},
        {"mixed_precision": True, "loss": SAMPLED, "sparse_items": True, "schedule": "cosine", "warmup": 0.1},
    ],
    ids=["float32", "bfloat16", "rows"],
)
def test_a_rank_with_nccl_learns_what_one_with_gloo_learns(tmp_path, options):
    there, _ = trained(tmp_path, "gpu", True, **options)
    here, _ = trained(tmp_path, "cpu", False, **options)
    assert there[0] == pytest.approx(here[0], rel=0.05)
    assert there[-1] == pytest.approx(here[-1], abs=0.15)
    assert there[-1] < there[0] / 2


@pytest.mark.parametrize("loss", [Loss(kind="softmax"), SAMPLED], ids=["table", "rows"])
def test_gradients_that_pass_through_ddp_and_nccl_are_those_of_gloo(tmp_path, monkeypatch, loss):
    """With one GPU there is one rank, which trains without DDP; ranks on several machines train inside DDP."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    config = Train(
        epochs=3, learning_rate=0.01, loss=loss, sparse_items=loss is SAMPLED, mixed_precision=False, accumulate=2
    )
    settings, spec, losses = Settings.of(config, 12, steps=2), replace(SPEC, dropout=0.0), []
    for device in (CPU, GPU):
        folder = tmp_path / device.type
        folder.mkdir()
        found = train_single_rank_in_ddp(folder, spec, settings, [batch(32), batch(16)], device)
        losses.append([entry["loss"] for entry in found.history])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[1][-1] < losses[1][0]


def test_a_resumed_rank_continues_where_it_was(tmp_path):
    whole, weights = trained(tmp_path, "whole", True, epochs=6)
    trained(tmp_path, "again", True, epochs=6)
    for path in sorted((tmp_path / "again/checkpoints").glob("epoch-*"))[-2:]:
        path.unlink()  # as if it had been killed before the last epoch was saved
    resumed, same = trained(tmp_path, "again", True, resume=True, epochs=6)
    assert resumed == pytest.approx(whole, rel=1e-3)
    torch.testing.assert_close(same, weights, rtol=1e-3, atol=1e-3)
