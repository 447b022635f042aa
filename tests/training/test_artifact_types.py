"""A model folder whose tensors have another number type is refused, even where its manifest fits."""

import pytest

from headwater.errors import ModelError
from headwater.models import ModelSpec, build
from headwater.training import artifact


def test_weights_of_another_number_type_are_refused(tmp_path):
    spec = ModelSpec("gru", n_items=6, max_length=4, dim=8, layers=1, heads=1)
    weights = build(spec).state_dict()
    artifact.save(tmp_path / "half", {**weights, "item.weight": weights["item.weight"].half()}, spec, {})
    with pytest.raises(ModelError, match=r"item\.weight is torch\.float16, not torch\.float32"):
        artifact.load(tmp_path / "half")
