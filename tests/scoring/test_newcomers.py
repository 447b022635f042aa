"""Items that came after the model: what is counted of them, and the vectors that they get."""

import numpy as np
import pytest
import torch

from headwater import schemas
from headwater.models import ModelSpec, build
from headwater.models.ranker import Ranker
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.newcomers import count, of_histories
from headwater.scoring.vectors import PRIOR, of_newcomers

KNOWN = 4
TEA, CAKE = 1, 2


def close(found, expected):
    """But for the trifle by which newcomers differ."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


def ranker():
    torch.manual_seed(1)
    return Ranker(build(ModelSpec("sasrec", n_items=KNOWN, max_length=4, dim=8, layers=1, heads=1)), {})


def catalogue(*of_newcomers, newcomers=None):
    codes = np.array([[0, 0], [TEA, 0], [TEA, CAKE], [CAKE, 0], [0, 0], *of_newcomers], dtype=np.int32)
    size = len(codes)
    names = np.array(["", "tea", "cake", "soap"])
    return Catalogue(np.arange(size) > 0, np.ones(size), codes, np.zeros(size), names, newcomers=newcomers)


def test_a_newcomer_stands_in_the_middle_of_its_categories():
    made = ranker()
    item = made.item_vectors
    tea, cake = (item[1] + item[2]) / 2, (item[2] + item[3]) / 2
    found = of_newcomers(made, catalogue([TEA, 0], [TEA, CAKE], [3, CAKE]))
    close(found, torch.stack([tea, (tea + cake) / 2, cake]))


def test_without_a_category_that_the_model_knows_it_stands_in_the_middle_of_everything():
    made = ranker()
    found = of_newcomers(made, catalogue([0, 0], [3, 0]))
    close(found, made.item_vectors[1:].mean(0).expand(2, -1))


def test_events_draw_it_towards_what_stood_beside_it():
    made = ranker()
    met = of_histories([[1, 5], [5, 4, 1]], KNOWN, 6)
    found = of_newcomers(made, catalogue([TEA, 0], [TEA, 0], newcomers=met))
    tea = (made.item_vectors[1] + made.item_vectors[2]) / 2
    near = (made.item_vectors[1] * (1 + 1 / 2) + made.item_vectors[4] * 1) / 2.5
    close(found[0], (PRIOR * tea + 2 * near) / (PRIOR + 2))
    close(found[1], tea)  # nobody met it yet


def test_no_two_newcomers_are_equal_and_the_same_catalogue_gives_the_same_vectors():
    made, grown = ranker(), catalogue([TEA, 0], [TEA, 0])
    found = of_newcomers(made, grown)
    assert (found[0] != found[1]).all()
    assert torch.equal(found, of_newcomers(made, grown))


def test_a_count_for_another_model_is_not_believed():
    made = ranker()
    met = of_histories([[1, 5]], KNOWN - 1, 5)
    close(of_newcomers(made, catalogue([TEA, 0], newcomers=met)), of_newcomers(made, catalogue([TEA, 0])))


def test_a_ranker_scores_newcomers_like_everything_else():
    made = ranker()
    vectors = torch.randn(2, 8)
    items, types = made.pad([[1, 6, 2]], [[1, 1, 1]])
    before = made.scores(items, types)
    made = made.with_newcomers(vectors).with_recency(np.ones(7))
    after = made.scores(items, types)
    assert after.shape == (1, 7)
    close(after[:, :5], before)
    close(made.scores_of(torch.tensor([[6, 2]]), made.query(items, types)), after[:, [6, 2]])


def test_newcomers_are_counted_from_the_histories_that_met_them(spark):
    rows = [
        ("a", [1, 5, 2], *[None] * 4, [1, 2, 5], None, None),
        ("b", [5, 6], *[None] * 4, [5, 6], None, None),
        ("c", [1, 2], *[None] * 4, [1, 2], None, None),
    ]
    sequences = spark.createDataFrame(rows, schemas.ddl("sequences"))
    found = count(sequences, KNOWN, 6)
    assert found.events.tolist() == [2, 1]
    assert found.followed.toarray()[0].tolist() == pytest.approx([0, 0, 1 / 2, 0, 0, 0, 1 / 2])
    assert found.beside.toarray()[1].tolist() == [0, 0, 0, 0, 0, 1, 0]
    assert count(sequences, 6, 6) is None
