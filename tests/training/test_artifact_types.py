"""Loading a model folder: each part of a hybrid comes back unchanged; tensors of another dtype are refused even if the manifest
fits."""

import numpy as np
import pytest

from headwater.errors import ModelError
from headwater.models import ModelSpec, build
from headwater.training import artifact, hybrid


def test_weights_of_another_dtype_are_refused(tmp_path):
    spec = ModelSpec("gru", n_items=6, max_length=4, dim=8, layers=1, heads=1)
    weights = build(spec).state_dict()
    artifact.save(tmp_path / "half", {**weights, "item.weight": weights["item.weight"].half()}, spec, {})
    with pytest.raises(ModelError, match=r"item\.weight is torch\.float16, not torch\.float32"):
        artifact.load(tmp_path / "half")


def test_every_part_of_a_hybrid_is_loaded_as_it_was_saved(tmp_path):
    spec = ModelSpec("gru", n_items=6, max_length=4, dim=8, layers=1, heads=1)
    parts = hybrid.fit_parts(sorted(artifact.NEIGHBOURS), np.array([[0, 2, 1, 3], [2, 1, 5, 6]]), 6)
    artifact.save(tmp_path / "hybrid", build(spec).state_dict(), spec, {"blend": dict.fromkeys(parts, 1.0)}, parts)
    found = artifact.ranker(tmp_path / "hybrid").neighbours
    assert sorted(found) == sorted(parts) == ["als", "ease", "repeats", "transitions"]
    for name, part in parts.items():
        assert (found[name].matrix != part.matrix).nnz == 0
        assert (found[name].window, found[name].decay, found[name].most) == (part.window, part.decay, part.most)
