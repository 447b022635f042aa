"""What docs/models.md shows works: word vectors become features, and the encoder keeps the contract of all encoders."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from headwater import models
from headwater.models import ModelSpec
from headwater.training import describe

PAGE = Path(__file__).resolve().parents[2] / "docs/models.md"


def blocks():
    """The two of the page: word vectors of a catalogue, and an encoder."""
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(found) == 2
    return found


def test_word_vectors_of_a_catalogue_are_features(spark, tmp_path):
    titles = ["red spade", "blue spade", "red pot", "green pot", "green seeds", None]
    goods = [(f"i{number}", number, title) for number, title in enumerate(titles, start=1)]
    items = spark.createDataFrame(goods, "item_id string, item_idx int, title string")
    exec(blocks()[0].replace('"item-vectors.parquet"', f'"{tmp_path}/item-vectors.parquet"'), {"items": items})
    found = describe.features(items, ("vector",), 6, f"{tmp_path}/item-vectors.parquet")
    assert [row.nnz for row in found] == [0, 64, 64, 64, 64, 64, 0]
    assert np.allclose(found.multiply(found).sum(axis=1).A1, [0, 1, 1, 1, 1, 1, 0], atol=1e-5)


@pytest.fixture
def encoder(monkeypatch):
    code = blocks()[1]
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
