"""Initial item vectors: items that occur together have similar vectors."""

import numpy as np
import torch

from headwater.models import factors

RNG = np.random.default_rng(1)
CLIQUES = np.concatenate([RNG.integers(1, 6, (80, 6)), RNG.integers(6, 11, (80, 6))])
"""Items 1 to 5 occur with each other, and so do 6 to 10; item 11 never occurs, item 12 only alone."""
SEQUENCES = np.concatenate([CLIQUES, [[0, 0, 0, 0, 0, 12]]])


def test_items_that_occur_together_have_similar_vectors():
    unit = torch.nn.functional.normalize(factors.item_vectors(SEQUENCES, 12, 4, seed=1), dim=1)
    cosines = unit[1:11] @ unit[1:11].T
    same = torch.block_diag(torch.ones(5, 5), torch.ones(5, 5)).bool()
    assert cosines[same].min() > 0.8 > 0.3 > cosines[~same].max()


def test_vectors_of_items_that_occur_have_standard_deviation_one_and_others_are_zero():
    vectors = factors.item_vectors(SEQUENCES, 12, 4, seed=1)
    torch.testing.assert_close(vectors[1:11].std(correction=0), torch.tensor(1.0))
    assert not vectors[[0, 11, 12]].any()


def test_the_same_seed_gives_the_same_vectors_and_does_not_affect_other_random_draws():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = factors.item_vectors(SEQUENCES, 12, 4, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, factors.item_vectors(SEQUENCES, 12, 4, seed=1))


def test_more_dimensions_than_items_and_sequences_without_pairs_give_finite_vectors():
    assert torch.isfinite(factors.item_vectors(SEQUENCES, 12, 64, seed=1)).all()
    assert not factors.item_vectors(np.array([[0, 3]]), 12, 4, seed=1).any()
