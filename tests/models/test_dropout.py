"""Dropout: the share of zeros, the scale of the other values, and the same mask for gradients."""

import pytest
import torch

from headwater.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9])
def test_a_share_p_of_the_values_is_zeroed_and_the_mean_is_kept(p):
    torch.manual_seed(1)
    found = Dropout(p)(torch.ones(300, 1_001))
    assert float((found == 0).float().mean()) == pytest.approx(p, abs=0.005)
    torch.testing.assert_close(found[found != 0], torch.full_like(found[found != 0], 1 / (1 - p)), rtol=2e-4, atol=0)
    assert float(found.mean()) == pytest.approx(1, abs=0.02)
    for apart in range(1, 6):  # four draws share a random word
        both = float(((found[:, apart:] == 0) & (found[:, :-apart] == 0)).float().mean())
        assert both == pytest.approx(p * p, abs=0.005)


def test_a_gradient_is_zero_where_its_value_was_zeroed():
    values = torch.randn(7, 5, requires_grad=True)
    found = Dropout(0.5)(values)
    found.sum().backward()
    torch.testing.assert_close(values.grad * values, found)


def test_the_same_seed_gives_the_same_mask_and_the_next_call_another():
    dropout, ones = Dropout(0.5), torch.ones(100)
    torch.manual_seed(3)
    first, second = dropout(ones), dropout(ones)
    torch.manual_seed(3)
    assert torch.equal(dropout(ones), first)
    assert not torch.equal(first, second)


def test_evaluation_and_p_zero_keep_all_values_and_empty_tensors_and_scalars_work():
    ones = torch.ones(1_000)
    assert torch.equal(Dropout(0.5).eval()(ones), ones)
    assert torch.equal(Dropout(0.0)(ones), ones)
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)
    assert Dropout(0.5)(torch.tensor(1.0)).shape == ()
    assert Dropout(0.999999)(ones).isfinite().all()


def test_half_precision_stays_half_precision():
    assert Dropout(0.5)(torch.ones(9, dtype=torch.bfloat16)).dtype == torch.bfloat16
