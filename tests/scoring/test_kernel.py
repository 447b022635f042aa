"""The exact Top-N kernel against a plain sort."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.scoring import kernel
from headwater.scoring.kernel import Pairs, top_n, top_n_rescored


def ranked(scores, *args, **options):
    """Top-N of a matrix of scores: the item matrix is the identity, so a user's vector is its scores."""
    return top_n(scores, torch.eye(scores.shape[1]), *args, **options)


def plain_sort(scores, blocked, n):
    """Sort every row in Python, by descending score and ascending index."""
    lists = []
    for row, values in enumerate(scores.tolist()):
        chosen = [i for _, i in sorted((-v, i) for i, v in enumerate(values) if (row, i) not in blocked)[:n]]
        lists.append(chosen + [-1] * (n - len(chosen)))
    return lists


def pairs_of(cells, values=None):
    rows, items = torch.tensor(sorted(cells), dtype=torch.int64).reshape(-1, 2).T
    return Pairs(rows, items, values)


@given(
    data=st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=5),
    blocked=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 6))),
    bonus=st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 6)), st.integers(-2, 2)),
    n=st.integers(1, 9),
    block=st.integers(1, 4),
    batch=st.integers(1, 6),
    tile=st.integers(1, 8),
)
@settings(max_examples=300, deadline=None)
def test_top_n_equals_a_plain_sort_including_ties(data, blocked, bonus, n, block, batch, tile):
    scores = torch.tensor(data, dtype=torch.float32)
    blocked = {cell for cell in blocked if cell[0] < len(data)}
    bonus = {cell: value for cell, value in sorted(bonus.items()) if cell[0] < len(data)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "BLOCK", block)
        extra = pairs_of(bonus, torch.tensor(list(bonus.values()), dtype=torch.float32))
        _, found = ranked(scores, n, pairs_of(blocked), extra, batch=batch, tile=tile)
    for (row, item), value in bonus.items():
        scores[row, item] += value
    assert found.tolist() == plain_sort(scores, blocked, n)


@pytest.mark.parametrize("values", [1, 3, 40, 1_000_000])
@pytest.mark.parametrize(("width", "n", "block"), [(500, 5, 8), (1_000, 10, 50), (203, 1, 64), (640, 10, 32)])
def test_top_n_in_many_tiles_equals_a_plain_sort_including_ties(monkeypatch, values, width, n, block):
    monkeypatch.setattr(kernel, "BLOCK", block)
    draws = torch.Generator().manual_seed(width + values)
    scores = torch.randint(values, (40, width), generator=draws).float()
    cells = {(row, item) for row in range(0, 40, 3) for item in scores[row].topk(3).indices.tolist()}
    expected = plain_sort(scores, cells, n)
    for tile in (width, width // 2 + 1, block):
        best, found = ranked(scores, n, pairs_of(cells), batch=17, tile=tile)
        assert found.tolist() == expected
        assert torch.equal(best, scores.gather(1, found))


@pytest.mark.parametrize("tile", [1, 2, 100])
def test_the_lower_index_wins_a_tie_for_every_tile_size(tile):
    scores, items = ranked(torch.ones(1, 5), 3, tile=tile)
    assert items.tolist() == [[0, 1, 2]]
    assert scores.tolist() == [[1.0, 1.0, 1.0]]


def test_missing_places_have_index_minus_one_and_score_minus_infinity():
    scores, items = ranked(torch.tensor([[9.0, 1.0, 2.0]]), 4, pairs_of({(0, 0)}))
    assert items.tolist() == [[2, 1, -1, -1]]
    assert scores.tolist() == [[2.0, 1.0, -torch.inf, -torch.inf]]


def test_top_n_of_random_vectors_equals_a_plain_sort_of_their_products():
    draws = torch.Generator().manual_seed(1)
    users, items = torch.randn(150, 16, generator=draws), torch.randn(30_000, 16, generator=draws)
    scores, found = top_n(users, items, 10)
    expected = (users @ items.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(found, expected.indices[:, :10])
    assert torch.allclose(scores, expected.values[:, :10], rtol=1e-6)


def test_rescored_low_precision_candidates_give_the_same_lists_as_a_plain_sort():
    draws = torch.Generator().manual_seed(1)
    users, items = torch.randn(60, 16, generator=draws), torch.randn(5_000, 16, generator=draws)
    best = (users @ items.T).topk(3).indices
    blocked = pairs_of({(row, int(best[row, 0])) for row in range(0, 60, 2)})
    extra = {(row, int(best[row, 1])): -5.0 for row in range(0, 60, 3)} | {(1, 7): 50.0}
    bonus = pairs_of(extra, torch.tensor([extra[cell] for cell in sorted(extra)]))
    scores, found = top_n_rescored(users, items, 10, blocked, bonus)
    expected = users.double() @ items.T.double()
    for (row, item), value in extra.items():
        expected[row, item] += value
    expected[blocked.rows, blocked.items] = -torch.inf
    order = expected.sort(dim=1, descending=True, stable=True)
    assert torch.equal(found, order.indices[:, :10])
    assert torch.allclose(scores.double(), order.values[:, :10], atol=1e-4)


def test_users_whose_low_precision_scores_are_inconclusive_are_searched_exactly():
    """A thousand items that bfloat16 cannot distinguish: the best may be any of them."""
    draws = torch.Generator().manual_seed(1)
    items = torch.cat([100 + torch.rand(1_000, 1, generator=draws) / 100, torch.zeros(1_000, 1)], dim=1)
    items[::2] = items[::2].flip(1)
    users = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    scores, found = top_n_rescored(users, items, 5)
    expected = (users @ items.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(found, expected.indices[:, :5])
    assert torch.equal(scores, expected.values[:, :5])


def test_rescoring_leaves_places_empty_when_there_are_fewer_items_than_places():
    scores, found = top_n_rescored(torch.tensor([[2.0]]), torch.tensor([[1.0], [3.0]]), 4, pairs_of({(0, 0)}))
    assert found.tolist() == [[1, -1, -1, -1]]
    assert scores.tolist() == [[6.0, -torch.inf, -torch.inf, -torch.inf]]


def test_forbidden_items_do_not_force_an_exact_search_for_all_users(monkeypatch):
    draws = torch.Generator().manual_seed(3)
    users, items = torch.randn(64, 17, generator=draws), torch.randn(4_000, 17, generator=draws)
    users[:, -1], items[:, -1] = 1.0, 0.0
    items[:10, -1] = -1e9
    searched, real = [], kernel.top_n
    monkeypatch.setattr(kernel, "top_n", lambda users, *rest: searched.append(len(users)) or real(users, *rest))
    scores, places = kernel.top_n_rescored(users, items, 10)
    exact = real(users, items, 10)
    torch.testing.assert_close(scores, exact[0])
    assert places.tolist() == exact[1].tolist()
    assert sum(searched[1:]) < 64
