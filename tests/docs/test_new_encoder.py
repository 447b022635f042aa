"""The encoder that docs/models.md shows keeps the contract of all encoders."""

import re
from pathlib import Path

import pytest
import torch

from headwater import models
from headwater.models import ModelSpec

PAGE = Path(__file__).resolve().parents[2] / "docs/models.md"


@pytest.fixture
def encoder(monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names = {"__name__": "convolution"}
    exec(code, names)
    monkeypatch.setitem(models.ENCODERS, "convolution", names["Convolution"])
    torch.manual_seed(1)
    return models.build(ModelSpec("convolution", n_items=12, max_length=8, dim=32, dropout=0.0))


def test_it_knows_nothing_of_the_future_and_padding_moves_nothing(encoder):
    one, other = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 9, 8]])
    a, b = encoder.encode(one, one.clamp(max=1)), encoder.encode(other, other.clamp(max=1))
    torch.testing.assert_close(a[:, :3], b[:, :3])
    longer = torch.tensor([[0, 0, 0, 1, 2, 3, 4, 5]])
    torch.testing.assert_close(encoder.user_vectors(longer, longer.clamp(max=1)), a[:, -1], atol=1e-5, rtol=1e-5)


def test_it_learns_a_planted_cycle(encoder):
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)
    items = (torch.arange(12).unsqueeze(1) + torch.arange(7)) % 12 + 1
    types = torch.ones_like(items)
    for _ in range(150):
        total, count = encoder.train().loss(items, types)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    scores = encoder.eval().user_vectors(items[:, :6], types[:, :6]) @ encoder.item_matrix()[1:].T
    assert (scores.argmax(1) + 1 == items[:, 6]).float().mean() >= 0.9
