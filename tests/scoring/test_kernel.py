"""The exact Top-N against a plain sort."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.scoring import kernel
from headwater.scoring.kernel import top_n

NONE = torch.empty(0, dtype=torch.int64)


def tiles(scores):
    return lambda start, stop: scores[:, start:stop].clone()


def plain(scores, allowed, blocked, n):
    """Sort every row by (score down, index up) in Python."""
    lists = []
    for row, values in enumerate(scores.tolist()):
        fit = [(-v, i) for i, v in enumerate(values) if allowed[i] and (row, i) not in blocked]
        chosen = [i for _, i in sorted(fit)[:n]]
        lists.append(chosen + [0] * (n - len(chosen)))
    return lists


@given(
    data=st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=5),
    allowed=st.lists(st.booleans(), min_size=7, max_size=7),
    pairs=st.sets(st.tuples(st.integers(0, 4), st.integers(1, 6))),
    n=st.integers(1, 9),
    tile=st.integers(1, 8),
)
@settings(max_examples=200, deadline=None)
def test_it_equals_a_plain_sort_ties_and_all(data, allowed, pairs, n, tile):
    scores = torch.tensor(data, dtype=torch.float32)
    mask = torch.tensor([False, *allowed[1:]])
    blocked = sorted(pair for pair in pairs if pair[0] < len(data))
    rows = torch.tensor([row for row, _ in blocked], dtype=torch.int64)
    items = torch.tensor([item for _, item in blocked], dtype=torch.int64)
    _, found = top_n(tiles(scores), mask, rows, items, n, tile)
    assert found.tolist() == plain(scores, mask.tolist(), set(blocked), n)


@pytest.mark.parametrize("values", [3, 40, 1_000_000])
@pytest.mark.parametrize(("width", "n", "block"), [(500, 5, 8), (1_000, 10, 50), (203, 1, 64), (640, 10, 32)])
def test_by_way_of_blocks_it_equals_a_plain_sort_ties_and_all(monkeypatch, values, width, n, block):
    monkeypatch.setattr(kernel, "BLOCK", block)
    draws = torch.Generator().manual_seed(width + values)
    scores = torch.randint(values, (40, width), generator=draws).float()
    mask = torch.rand(width, generator=draws) < 0.9
    pairs = {(row, item) for row in range(0, 40, 3) for item in scores[row].topk(3).indices.tolist()}
    rows, items = (torch.tensor(part) for part in zip(*sorted(pairs), strict=True))
    expected = plain(scores, mask.tolist(), pairs, n)
    for tile in (width, width // 2 + 1):
        best, found = top_n(tiles(scores), mask, rows, items, n, tile)
        assert found.tolist() == expected
        assert torch.equal(best, scores.gather(1, found))


@pytest.mark.parametrize("tile", [1, 2, 100])
def test_the_lower_index_wins_a_tie_whatever_the_tile(tile):
    scores, items = top_n(tiles(torch.ones(1, 5)), torch.tensor([False] + [True] * 4), NONE, NONE, 3, tile)
    assert items.tolist() == [[1, 2, 3]]
    assert scores.tolist() == [[1.0, 1.0, 1.0]]


def test_what_is_missing_is_index_zero_and_minus_infinity():
    scores, items = top_n(tiles(torch.tensor([[9.0, 1.0, 2.0]])), torch.tensor([False, True, True]), NONE, NONE, 4)
    assert items.tolist() == [[2, 1, 0, 0]]
    assert scores.tolist() == [[2.0, 1.0, -torch.inf, -torch.inf]]
