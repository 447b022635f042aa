"""The code in docs/models.md works: word vectors become features, and the encoder keeps the contract of all encoders."""

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from headwater import config, encoders, models
from headwater.errors import UsageError
from headwater.training import describe, facts

PAGE = Path(__file__).resolve().parents[2] / "docs/models.md"


def code_blocks():
    """The two Python blocks of the page: word vectors of a catalogue, and an encoder."""
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(found) == 2
    return found


def test_word_vectors_of_a_catalogue_are_features(spark, tmp_path):
    titles = ["red spade", "blue spade", "red pot", "green pot", "green seeds", None]
    goods = [(f"i{number}", number, title) for number, title in enumerate(titles, start=1)]
    items = spark.createDataFrame(goods, "item_id string, item_idx int, title string")
    exec(code_blocks()[0].replace('"item-vectors.parquet"', f'"{tmp_path}/item-vectors.parquet"'), {"items": items})
    found = describe.features(items, ("vector",), 6, f"{tmp_path}/item-vectors.parquet")
    assert [row.nnz for row in found] == [0, 64, 64, 64, 64, 64, 0]
    assert np.allclose(found.multiply(found).sum(axis=1).A1, [0, 1, 1, 1, 1, 1, 0], atol=1e-5)


@pytest.fixture
def encoder(monkeypatch):
    """The page's encoder, with its file and its line in the registry, built from a config with its `model.kind`."""
    [(kind, place)] = re.findall(r'the line `"(\w+)": "([\w.]+)"`', PAGE.read_text())
    [asked] = re.findall(r"`model\.kind: (\w+)` then trains it", PAGE.read_text())
    module = ModuleType(f"headwater.models.{place.split('.')[0]}")
    exec(code_blocks()[1], vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(encoders.ENCODERS, kind, place)
    monkeypatch.setitem(models.ENCODERS, kind, models._encoder(place))
    settings = config.load([], [f"model={{kind: {asked}, dim: 32, dropout: 0}}", "sequence.max_length=8"])
    torch.manual_seed(1)
    return models.build(facts.spec_of(settings, 12))


def test_the_encoder_is_built_by_its_kind_in_the_registry(encoder):
    assert (type(encoder).__name__, encoder.spec.kind) == ("Convolution", "convolution")
    again = models.restore(encoder.spec, encoder.state_dict())
    assert torch.equal(again.item_matrix(), encoder.item_matrix())


def test_without_a_line_in_the_registry_the_kind_is_refused():
    with pytest.raises(UsageError, match="'convolution' is not one of sasrec"):
        config.load([], ["model.kind=convolution"])


def test_order_and_event_type_matter_to_the_encoder(encoder):
    items, types = torch.tensor([[4, 5, 6]]), torch.ones(1, 3, dtype=torch.int64)
    vector = encoder.user_vectors(items, types)
    assert not torch.allclose(vector, encoder.user_vectors(items.flip(1), types), atol=1e-3)
    assert not torch.allclose(vector, encoder.user_vectors(items, 5 * types), atol=1e-3)


def test_states_depend_neither_on_later_events_nor_on_padding(encoder):
    one, other = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 9, 8]])
    a, b = encoder.encode(one, one.clamp(max=1)), encoder.encode(other, other.clamp(max=1))
    torch.testing.assert_close(a[:, :3], b[:, :3])
    longer = torch.tensor([[0, 0, 0, 1, 2, 3, 4, 5]])
    torch.testing.assert_close(encoder.user_vectors(longer, longer.clamp(max=1)), a[:, -1], atol=1e-5, rtol=1e-5)


def test_the_encoder_learns_a_planted_cycle(encoder):
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
