"""An event's context is packed into one number, and a model reads the parts that its spec names."""

import numpy as np
import pytest
import torch

from headwater import models
from headwater.models import ModelSpec, context


def packed(types, at, value, first=None):
    return torch.from_numpy(
        context.pack(
            np.array(types),
            np.array(at, dtype=float),
            np.array(value, dtype=float),
            np.arange(len(types)) == 0 if first is None else np.array(first),
        )
    )


def parts(codes):
    return {name: context.part(codes, name).tolist() for name in context.SIZES}


def test_each_part_can_be_read_back_from_the_code():
    codes = packed([0, 1, 6, 7], [0, 10, 11.9, 11 + 3600], [np.nan, np.nan, 5, -2], [True, True, False, False])
    assert parts(codes) == {"event_type": [0, 1, 6, 7], "gap": [0, 0, 2, 13], "value": [0, 0, 17, 1]}


def test_gaps_and_values_of_any_size_have_a_code():
    codes = packed([1] * 5, [0, 0, 1, 1e12, 5], [0, 1e-300, 1e300, np.inf, 1e-9])
    for name, size in context.SIZES.items():
        found = context.part(codes, name)
        assert (found.min() >= 0) & (found.max() < size)
    assert context.part(codes, "gap").tolist() == [0, 1, 2, 31, 1]  # a clock that went back counts as a gap of zero


def test_the_age_of_an_event_is_known_within_a_factor_of_two():
    days = np.array([0, 50, 80, 80, 170, 170.5, 171])
    codes = torch.stack([torch.cat([torch.zeros(2, dtype=torch.int64), packed([1] * 7, 86_400 * days, [1] * 7)])])
    (ages,) = context.ages(codes)
    true = torch.tensor(171 - days[:-1])
    assert ((ages[2:-1] > true / 2) & (ages[2:-1] < true * 2)).all()
    assert ages.diff().max() <= 0
    assert (ages[4] == ages[5], ages[-1]) == (True, 0)  # at the same moment


def test_ratings_from_one_to_five_have_different_codes():
    assert len(set(parts(packed([1] * 5, [0] * 5, [1, 2, 3, 4, 5]))["value"])) == 5


@pytest.mark.parametrize("name", list(context.SIZES))
def test_a_model_reads_only_the_context_parts_that_its_spec_names(name):
    items = torch.tensor([[3, 4, 5]])
    here = packed([1, 1, 1], [0, 60, 120], [1, 1, 1])[None]
    changed = {
        "event_type": packed([1, 1, 5], [0, 60, 120], [1, 1, 1]),
        "gap": packed([1, 1, 1], [0, 60, 9e5], [1, 1, 1]),
        "value": packed([1, 1, 1], [0, 60, 120], [1, 1, 9]),
    }
    torch.manual_seed(1)
    model = models.build(ModelSpec("sasrec", 9, 4, dim=8, layers=1, heads=1, context=(name,))).eval()
    before = model.user_vectors(items, here)
    for other, codes in changed.items():
        assert torch.equal(before, model.user_vectors(items, codes[None])) == (other != name)
