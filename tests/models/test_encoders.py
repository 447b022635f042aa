"""One contract for every encoder: no leak, no influence of padding, order matters, a planted pattern is learned."""

import dataclasses

import pytest
import torch

from headwater import models
from headwater.config import Loss
from headwater.models import ModelSpec, losses
from headwater.models.losses import Objective

KINDS = sorted(models.ENCODERS)
CAUSAL = [kind for kind in KINDS if kind != "bert4rec"]


def built(kind, n_items=20, max_length=8, dropout=0.0):
    torch.manual_seed(3)
    return models.build(ModelSpec(kind, n_items, max_length, dim=32, layers=2, heads=2, dropout=dropout))


def types_of(items):
    return (items > 0).long()


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_state_does_not_depend_on_later_events(kind):
    model = built(kind).eval()
    one, other = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 9, 8]])
    a, b = model.encode(one, types_of(one)), model.encode(other, types_of(other))
    torch.testing.assert_close(a[:, :3], b[:, :3])
    assert not torch.allclose(a[:, 3:], b[:, 3:])


@dataclasses.dataclass
class RecordingObjective:
    """Replaces a loss: keeps the states that predict an item, and the target items."""

    generator: torch.Generator

    def __call__(self, states, targets, weights, items):
        self.states, self.targets = states, targets
        return states.sum(), weights.sum()


def recorded_loss(model, items, context, seed):
    objective = RecordingObjective(torch.Generator().manual_seed(seed))
    model.loss(items, context, objective=objective)
    return objective


def test_predictions_for_a_masked_event_do_not_depend_on_that_event(monkeypatch):
    """The states that predict a masked event do not depend on its item or context; they do depend on visible events."""
    model = built("bert4rec").eval()
    items, context = torch.arange(1, 15).reshape(2, 7), torch.ones(2, 7, dtype=torch.int64)
    read = []
    monkeypatch.setattr(model, "encode", lambda *what: read.append(what[0]) or type(model).encode(model, *what))
    first = recorded_loss(model, items, context, seed=1)
    hidden = read[0] == model.mask_token
    assert 0 < hidden.sum() < items.numel()
    assert torch.equal(first.targets, items[hidden])
    other = recorded_loss(model, items.masked_fill(hidden, 20), context.masked_fill(hidden, 5), seed=1)
    assert set(other.targets.tolist()) == {20}
    assert torch.equal(other.states, first.states)
    assert not torch.allclose(
        recorded_loss(model, items.masked_fill(~hidden, 20), context, seed=1).states, first.states
    )
    assert not torch.allclose(recorded_loss(model, items, context.masked_fill(~hidden, 5), seed=1).states, first.states)


def test_the_only_event_of_a_history_is_never_masked():
    model = built("bert4rec")
    alone, among_others = torch.tensor([[0, 0, 0, 7]]), torch.tensor([[0, 0, 0, 7], [1, 2, 3, 4]])
    for seed in range(20):
        assert len(recorded_loss(model, alone, types_of(alone), seed).targets) == 0
        assert 7 not in recorded_loss(model, among_others, types_of(among_others), seed).targets


@pytest.mark.parametrize("kind", KINDS)
def test_padding_has_no_influence(kind):
    model = built(kind).eval()
    short, long = torch.tensor([[4, 5, 6]]), torch.tensor([[0, 0, 0, 0, 4, 5, 6]])
    torch.testing.assert_close(
        model.user_vectors(short, types_of(short)), model.user_vectors(long, types_of(long)), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_event_type_matter(kind):
    model = built(kind).eval()
    items = torch.tensor([[4, 5, 6]])
    vector = model.user_vectors(items, types_of(items))
    assert not torch.allclose(vector, model.user_vectors(items.flip(1), types_of(items)), atol=1e-3)
    assert not torch.allclose(vector, model.user_vectors(items, 5 * types_of(items)), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_newest_state_is_the_last_of_all_states(kind):
    model = built(kind).eval()
    items = torch.tensor([[0, 0, 4, 5, 6], [1, 2, 3, 4, 5], [0, 0, 0, 0, 7]])
    steps, real = model.item(items), items > 0
    torch.testing.assert_close(model.newest(steps, real), model.transform(steps, real)[:, -1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_input_scale_multiplies_the_inputs_and_not_the_item_matrix(kind):
    model, items = built(kind).eval(), torch.tensor([[0, 4, 5, 6]])
    longer = models.build(dataclasses.replace(model.spec, input_scale=3.0)).eval()
    longer.load_state_dict(model.state_dict())
    assert torch.equal(longer.item_matrix(), model.item_matrix())
    with torch.no_grad():
        model.item.weight *= 3
    vector = longer.user_vectors(items, types_of(items))
    torch.testing.assert_close(vector, model.user_vectors(items, types_of(items)))


@pytest.mark.parametrize("kind", KINDS)
def test_only_as_many_events_are_read_as_the_model_is_long(kind):
    model, items = built(kind, max_length=4).eval(), torch.arange(1, 15).reshape(2, 7)
    vector = model.user_vectors(items, types_of(items))
    torch.testing.assert_close(vector, model.user_vectors(items[:, -4:], types_of(items[:, -4:])))
    assert not torch.allclose(vector, model.user_vectors(items[:, -3:], types_of(items[:, -3:])), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_history_gives_finite_vectors(kind):
    empty = torch.zeros(2, 5, dtype=torch.int64)
    assert torch.isfinite(built(kind).eval().user_vectors(empty, empty)).all()


SAMPLED = [
    Loss(kind="sampled_softmax", negatives=8, source="popular", correction=False),
    Loss(kind="sampled_softmax", negatives=8, source="batch"),
    Loss(kind="gbce", negatives=8),
    Loss(kind="bpr", negatives=8),
]
LEARNED = [
    *((kind, loss) for kind in KINDS for loss in (Loss(kind="softmax"), Loss(kind="sampled_softmax", negatives=8))),
    *(("sasrec", loss) for loss in SAMPLED),
]


@pytest.mark.parametrize(("kind", "loss"), LEARNED)
def test_a_planted_cycle_is_learned(kind, loss):
    """Every item is followed by the next one; after training at least nine of ten next items are ranked first. A masked
    model predicts only a fifth of the events per step, so it gets more steps, with a lower learning rate."""
    steps, rate = (300, 5e-3) if kind == "bert4rec" else (150, 1e-2)
    model = built(kind, n_items=12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    objective = Objective(loss, torch.ones(13), torch.Generator().manual_seed(0))
    start = torch.arange(12).unsqueeze(1)
    items = (start + torch.arange(7)) % 12 + 1
    for _ in range(steps):
        total, count = model.train().loss(items, types_of(items), objective=objective)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    model.eval()
    scores = model.user_vectors(items[:, :6], types_of(items[:, :6])) @ model.item_matrix()[1:].T
    assert (scores.argmax(1) + 1 == items[:, 6]).float().mean() >= 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_padding_has_loss_and_weight_zero(kind):
    empty = torch.zeros(2, 6, dtype=torch.int64)
    total, weight = built(kind).loss(empty, empty)
    assert (total.item(), weight.item()) == (0.0, 0.0)
    total.backward()


@pytest.mark.parametrize(("kind", "loss"), LEARNED)
def test_bfloat16_gives_nearly_the_loss_and_the_gradient_of_float32(kind, loss, monkeypatch):
    """Autocast to bfloat16, as `train.mixed_precision` does on a GPU."""
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # its LSTM needs a CPU with bfloat16 support
    model, items = built(kind), torch.randint(1, 21, (16, 9), generator=torch.Generator().manual_seed(1))
    found = []
    for reduced in (False, True):
        model.zero_grad()
        objective = Objective(loss, torch.ones(21), torch.Generator().manual_seed(5))
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            total, weight = model.loss(items, types_of(items), objective=objective)
        (total / weight).backward()
        gradient = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
        found.append(((total / weight).item(), gradient))
    (exact, gradient), (near, near_gradient) = found
    assert near != exact
    assert near == pytest.approx(exact, rel=0.01)
    assert torch.cosine_similarity(gradient, near_gradient, dim=0) > 0.99


def test_the_weight_of_a_target_scales_its_loss():
    model, items = built("sasrec"), torch.tensor([[1, 2, 3, 4]])
    costs = []
    for target in (1, 2, 3):
        weights = torch.zeros(1, 4)
        weights[0, target] = 1.0
        total, count = model.loss(items, types_of(items), weights)
        assert count == 1
        costs.append(total.item())
    total, count = model.loss(items, types_of(items), torch.tensor([[9.0, 1.0, 2.0, 3.0]]))
    assert count == 6
    assert total.item() == pytest.approx(costs[0] + 2 * costs[1] + 3 * costs[2], rel=1e-5)


def test_the_tiled_loss_equals_the_loss_in_one_piece(monkeypatch):
    model, items = built("sasrec"), torch.randint(1, 21, (6, 7), generator=torch.Generator().manual_seed(1))
    whole, _ = model.loss(items, types_of(items))
    whole.backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    monkeypatch.setitem(losses.TILE_LOGITS, "cpu", 1)  # the smallest tile: 16 of 36 positions
    tiled, _ = model.loss(items, types_of(items))
    tiled.backward()
    torch.testing.assert_close(whole, tiled)
    torch.testing.assert_close({name: weight.grad for name, weight in model.named_parameters()}, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", [Loss(kind="softmax"), Loss(kind="gbce", source="batch")], ids=lambda loss: loss.kind)
def test_a_history_of_two_events_always_has_a_target(kind, loss):
    """For every seed, although random masking of two events may mask neither."""
    model, items = built(kind), torch.tensor([[0, 4, 5]])
    for seed in range(20):
        objective = Objective(loss, torch.ones(21), torch.Generator().manual_seed(seed))
        total, weight = model.loss(items, types_of(items), objective=objective)
        assert weight > 0
        assert torch.isfinite(total)
