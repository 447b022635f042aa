"""Re-ranking for variety, against the definitions written out."""

import pytest
import torch

from headwater.models.variety import SMOOTHING, Cap, Mix, Variety, calibrated, dpp, mmr

SCORES = torch.tensor([[4.0, 3.0, 2.0, 0.0], [9.0, 8.9, 8.8, -torch.inf]])
NORTH, EAST = [0.0, 1.0], [1.0, 0.0]
VECTORS = torch.tensor([[NORTH, NORTH, EAST, EAST], [NORTH, NORTH, EAST, EAST]])


def random_candidates(users, candidates, dim, seed=2):
    draws = torch.Generator().manual_seed(seed)
    scores = torch.rand(users, candidates, generator=draws, dtype=torch.float64).sort(descending=True).values
    vectors = torch.randn(users, candidates, dim, generator=draws, dtype=torch.float64)
    return scores, torch.nn.functional.normalize(vectors, dim=2)


@pytest.mark.parametrize("rule", [mmr, dpp])
def test_with_weight_zero_order_and_scores_do_not_change(rule):
    values, places = rule(SCORES, VECTORS, 3, 0.0)
    assert places.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert torch.equal(values, SCORES[:, :3])


@pytest.mark.parametrize("rule", [mmr, dpp])
def test_an_item_unlike_the_first_comes_before_one_like_it(rule):
    assert rule(SCORES, VECTORS, 3, 0.5)[1][0].tolist() == [0, 2, 1]


def test_a_score_is_lowered_by_the_similarity_to_the_items_above_it():
    values, _ = mmr(SCORES, VECTORS, 3, 0.5)
    assert values[0].tolist() == [4.0, 2.0, 3.0 - (4.0 - 0.0) * 1.0]


@pytest.mark.parametrize("rule", [mmr, dpp])
def test_a_place_without_an_item_comes_last(rule):
    values, places = rule(SCORES, VECTORS, 4, 0.9)
    assert places[1, 3] == 3
    assert values[1, 3] == -torch.inf


@pytest.mark.parametrize("rule", [mmr, dpp])
def test_without_candidates_the_places_do_not_change(rule):
    values, places = rule(torch.full((1, 3), -torch.inf), VECTORS[:1, :3], 2, 0.5)
    assert places.tolist() == [[0, 1]]
    assert values.tolist() == [[-torch.inf, -torch.inf]]


@pytest.mark.parametrize("rule", [mmr, dpp])
@pytest.mark.parametrize("dim", [3, 8, 40])
def test_a_shorter_list_is_the_beginning_of_a_longer_one_and_scores_never_rise(rule, dim):
    scores, vectors = random_candidates(20, 30, dim)
    values, places = rule(scores, vectors, 30, 0.4)
    for n in (1, 5, 12):
        assert torch.equal(rule(scores, vectors, n, 0.4)[1], places[:, :n])
    assert all(sorted(row) == list(range(30)) for row in places.tolist())
    assert (values.diff(dim=1) <= 1e-9).all()


@pytest.mark.parametrize("rule", [mmr, dpp])
def test_items_of_a_category_that_has_reached_its_cap_are_skipped(rule):
    scores = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0]])
    action, comedy, none = 1, 2, 0
    categories = torch.tensor([[[action, none], [action, comedy], [comedy, action], [comedy, none], [none, none]]])
    vectors = torch.eye(5).unsqueeze(0)
    values, places = rule(scores, vectors, 5, 0.0, Cap(categories, 2))
    assert places[0, :4].tolist() == [0, 1, 3, 4]  # item 2 would be a third action; no category is never capped
    assert values[0].tolist() == [9.0, 8.0, 6.0, 5.0, -torch.inf]
    assert rule(scores, vectors, 2, 0.0, Cap(categories, 1))[1].tolist() == [[0, 3]]


def test_a_capped_list_has_an_empty_place_if_no_item_may_be_added():
    variety = Variety("mmr", 0.0, candidates=4, most=1)
    scores, items = torch.tensor([[4.0, 3.0, 2.0, -torch.inf]]), torch.tensor([[7, 5, 6, 0]])
    categories = torch.ones(8, 1, dtype=torch.int64)
    values, picked = variety.pick(scores, items, 2, torch.eye(8).__getitem__, categories)
    assert (picked.tolist(), values.tolist()) == ([[7, 0]], [[4.0, -torch.inf]])


DRAMA, COMEDY, HORROR = 1, 2, 3


def test_a_calibrated_list_has_the_category_mix_of_its_user():
    """A mix of 70 % dramas and 30 % comedies, with ten candidates of each; every drama scores higher than any comedy."""
    scores = torch.linspace(2, 1, 20).unsqueeze(0)
    categories = torch.tensor([[[DRAMA, 0]] * 10 + [[COMEDY, 0]] * 10])
    mix = Mix(torch.tensor([[DRAMA, COMEDY]]), torch.tensor([[0.7, 0.3]]))
    _, places = calibrated(scores, mix.membership(categories), mix.shares, 10, 0.95)
    assert (places < 10).sum() == 7
    assert calibrated(scores, mix.membership(categories), mix.shares, 10, 0.0)[1].tolist() == [list(range(10))]


def test_calibrated_scores_equal_the_formula_computed_by_hand():
    scores = torch.tensor([[3.0, 2.5, 2.0, 1.0]], dtype=torch.float64)  # span 2, and strength 1 at weight 0.5
    categories = torch.tensor([[[DRAMA, 0], [DRAMA, COMEDY], [COMEDY, 0], [HORROR, 0]]])
    mix = Mix(torch.tensor([[DRAMA, COMEDY]]), torch.tensor([[0.6, 0.4]], dtype=torch.float64))
    assert mix.membership(categories).tolist() == [[[1, 0], [0.5, 0.5], [0, 1], [0, 0]]]
    values, places = calibrated(scores, mix.membership(categories).double(), mix.shares, 3, 0.5)
    drama, comedy = 0.6 * SMOOTHING, 0.4 * SMOOTHING
    log = lambda part, had: torch.log(torch.tensor((had + part) / had, dtype=torch.float64))  # noqa: E731
    both = 2.5 + 2 * (0.6 * log(0.5, drama) + 0.4 * log(0.5, comedy))
    first = 3.0 + 2 * 0.6 * log(1, drama)
    assert both > first  # an item of two wanted categories beats a better-scored item of one
    second = 3.0 + 2 * 0.6 * log(1, drama + 0.5)
    third = 2.0 + 2 * 0.4 * log(1, comedy + 0.5)
    assert places.tolist() == [[1, 0, 2]]
    torch.testing.assert_close(values[0], torch.stack([both, second, third]))


def test_a_user_without_categories_gets_the_best_scored_items():
    mix = Mix(torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2))
    categories = torch.tensor([[[DRAMA], [COMEDY], [0], [DRAMA]]])
    values, places = calibrated(SCORES[:1], mix.membership(categories), mix.shares, 3, 0.8)
    assert (places.tolist(), values.tolist()) == ([[0, 1, 2]], [[4.0, 3.0, 2.0]])


def test_a_shorter_calibrated_list_is_the_beginning_of_a_longer_one_and_scores_never_rise():
    scores, _ = random_candidates(20, 30, 4)
    draws = torch.Generator().manual_seed(3)
    categories = torch.randint(0, 5, (20, 30, 2), generator=draws)
    shares = torch.rand(20, 4, generator=draws, dtype=torch.float64)
    mix = Mix(torch.arange(1, 5).expand(20, -1), shares / shares.sum(1, keepdim=True))
    values, places = calibrated(scores, mix.membership(categories), mix.shares, 30, 0.5)
    for n in (1, 5, 12):
        assert torch.equal(calibrated(scores, mix.membership(categories), mix.shares, n, 0.5)[1], places[:, :n])
    assert all(sorted(row) == list(range(30)) for row in places.tolist())
    assert (values.diff(dim=1) <= 1e-9).all()


def test_each_dpp_pick_maximises_the_determinant():
    weight = 0.3
    scores, vectors = random_candidates(5, 9, 16)
    _, found = dpp(scores, vectors, 4, weight)
    strength = (scores[:, :1] - scores[:, -1:]) * weight / (1 - weight)
    quality = torch.exp(scores / strength / 2)
    kernel = quality.unsqueeze(2) * (1 + vectors @ vectors.transpose(1, 2)) / 2 * quality.unsqueeze(1)
    for row in range(5):
        picked = []
        for _ in range(4):
            rest = [i for i in range(9) if i not in picked]
            picked.append(max(rest, key=lambda i: torch.det(kernel[row][[*picked, i]][:, [*picked, i]]).item()))
        assert found[row].tolist() == picked
