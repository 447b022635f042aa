"""Losses by arithmetic: the full softmax, the effect of sampling, and the sources of negatives."""

from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid

from headwater.config import Loss
from headwater.models import losses, negatives
from headwater.models.losses import Objective


@dataclass
class Matrix:
    """An item matrix in place of a model."""

    matrix: torch.Tensor

    def item_matrix(self):
        return self.matrix

    def item_rows(self, items):
        return self.matrix[items]


def drawn(seed=2, positions=9, n_items=7, dim=4):
    draws = torch.Generator().manual_seed(seed)
    states = torch.randn(positions, dim, generator=draws, requires_grad=True)
    matrix = torch.randn(n_items + 1, dim, generator=draws, requires_grad=True)
    targets, weights = (
        torch.randint(1, n_items + 1, (positions,), generator=draws),
        torch.rand(positions, generator=draws),
    )
    return states, matrix, targets, weights


def test_the_full_softmax_and_its_gradient_equal_cross_entropy():
    states, matrix, targets, weights = drawn()
    plain = cross_entropy(states @ matrix[1:].T, targets - 1, reduction="none") @ weights
    expected = torch.autograd.grad(3 * plain, [states, matrix])
    total, weight = Objective()(states, targets, weights, Matrix(matrix))
    torch.testing.assert_close((total, weight), (plain, weights.sum()))
    torch.testing.assert_close(torch.autograd.grad(3 * total, [states, matrix]), expected)


def test_the_loss_of_a_large_catalogue_holds_one_tile_of_logits():
    """2,000 positions × 20,000 items are 160 MB of logits; only two small gradients are kept for the backward pass."""
    kept = []
    states, matrix = torch.randn(2_000, 8, requires_grad=True), torch.randn(20_001, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        total, _ = Objective()(states, torch.ones(2_000).long(), torch.ones(2_000), Matrix(matrix))
        total.backward()
    assert sum(kept) <= states.numel() + matrix.numel()


POSITIVE, NEGATIVE = torch.tensor([1.0]), torch.tensor([[0.5, -1.0, 1.0]])
HIT = torch.tensor([[False, False, True]])  # the third draw is the target itself
EXPECTED = torch.tensor([0.5, 0.25, 0.5]).log()


def value(kind, **options):
    loss = Loss(kind=kind, **options)
    return losses.SAMPLED[kind](POSITIVE, NEGATIVE, HIT, EXPECTED, loss, 7).item()


def test_sampled_softmax_covers_the_target_and_the_drawn_negatives():
    e = torch.tensor([1.0, 0.5, -1.0]).exp()
    assert value("sampled_softmax", correction=False) == pytest.approx(-(e[0] / e.sum()).log().item(), rel=1e-5)


def test_with_correction_a_negative_is_weighted_by_the_inverse_of_its_expected_count():
    e = torch.tensor([1.0, 0.5, -1.0]).exp() / torch.tensor([1.0, 0.5, 0.25])
    assert value("sampled_softmax") == pytest.approx(-(e[0] / e.sum()).log().item(), rel=1e-5)


def test_gbce_calibration_interpolates_between_the_plain_loss_and_full_correction():
    s = torch.tensor([1.0, -0.5, 1.0])  # the score of the positive, and the negated scores of the negatives
    log = logsigmoid(s)
    alpha = 3 / 6
    for calibration, beta in ((0.0, 1.0), (1.0, alpha), (0.5, alpha * (0.5 * (1 - 1 / alpha) + 1 / alpha))):
        expected = -(beta * log[0] + log[1] + log[2]) / 4
        assert value("gbce", calibration=calibration) == pytest.approx(expected.item(), rel=1e-5)


def test_bpr_is_the_mean_over_negatives_that_are_not_the_target():
    expected = -logsigmoid(torch.tensor([1.0 - 0.5, 1.0 + 1.0])).mean()
    assert value("bpr") == pytest.approx(expected.item(), rel=1e-5)


def test_sampled_softmax_with_correction_estimates_the_gradient_of_the_full_softmax():
    """With the correction, the mean gradient over many draws is close to that of the full softmax; without it, it is not."""
    states, matrix, targets, weights = drawn(n_items=40)
    whole = torch.autograd.grad(Objective()(states, targets, weights, Matrix(matrix))[0], states)[0]
    counts = torch.arange(41).float()

    def distance(**options):
        objective = Objective(Loss(kind="sampled_softmax", **options), counts, torch.Generator().manual_seed(1))
        total = sum(objective(states, targets, weights, Matrix(matrix))[0] for _ in range(200)) / 200
        return (torch.autograd.grad(total, states)[0] - whole).norm() / whole.norm()

    for source in ("uniform", "popular"):
        assert distance(negatives=64, source=source) < 0.1
    assert distance(negatives=4, correction=False) > 0.2


def test_negatives_are_drawn_with_the_frequencies_of_their_source():
    counts = torch.tensor([0.0, 6, 3, 0, 0, 0, 0])
    generator = torch.Generator().manual_seed(0)
    targets = torch.tensor([2, 2, 5, 2])

    def shares(source):
        got = negatives.draw(
            Loss(kind="bpr", negatives=20_000, source=source),
            targets,
            negatives.SamplingDistribution(counts),
            generator,
        )
        return torch.bincount(got.items, minlength=7) / 20_000, got

    uniform, got = shares("uniform")
    assert torch.allclose(uniform[1:], torch.full((6,), 1 / 6), atol=0.02)
    assert torch.allclose(got.log_expected.exp(), torch.full((20_000,), 20_000 / 6))
    popular, got = shares("popular")
    often = torch.tensor([0, 6, 3, 0.5, 0.5, 0.5, 0.5]) / 11
    assert torch.allclose(popular, often, atol=0.02)
    assert torch.allclose(got.log_expected.exp(), 20_000 * often[got.items], rtol=1e-4)
    batch, _ = shares("batch")
    assert torch.allclose(batch, torch.tensor([0, 0, 0.75, 0, 0, 0.25, 0]), atol=0.02)


@pytest.mark.parametrize("loss", [Loss(kind="softmax"), Loss(kind="sampled_softmax", negatives=64, source="batch")])
def test_positions_of_weight_zero_are_neither_targets_nor_negatives(loss):
    states, matrix, targets, weights = drawn()
    weights[::2] = 0

    def found(*positions):
        total, weight = Objective(loss, torch.ones(8), torch.Generator().manual_seed(1))(*positions, Matrix(matrix))
        return total, weight, *torch.autograd.grad(total, [states, matrix])

    assert all(map(torch.equal, found(states, targets, weights), found(states[1::2], targets[1::2], weights[1::2])))
    nothing = found(states, targets, weights * 0)  # a rank without targets still takes part in the all-reduce
    assert not any(part.any() for part in nothing)


@pytest.mark.parametrize("source", ["uniform", "popular", "batch"])
def test_a_batch_without_targets_has_loss_and_weight_zero(source):
    objective = Objective(Loss(kind="sampled_softmax", source=source), torch.ones(8), torch.Generator())
    nothing = torch.zeros(0, dtype=torch.int64)
    total, weight = objective(torch.zeros(0, 4), nothing, torch.zeros(0), Matrix(torch.randn(8, 4)))
    assert (total.item(), weight.item()) == (0.0, 0.0)
