"""Items that the model was not trained on: what is counted for them, and the vectors that they get."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from headwater import schemas
from headwater.models import ModelSpec, build
from headwater.models.ranker import Ranker
from headwater.scoring import newcomers
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.newcomers import ITEMS_PER_WORD, TEXT_CHARACTERS, alike, count, of_histories, of_words
from headwater.scoring.vectors import PRIOR_EVENTS, of_newcomers
from headwater.training import describe

KNOWN = np.ones(5, dtype=bool)  # the items 1 to 4
TEA, CAKE = 1, 2


def assert_nearly_equal(found, expected):
    """Equal up to the small noise in newcomers' vectors."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


def ranker(trained=None):
    torch.manual_seed(1)
    model = build(ModelSpec("sasrec", n_items=4, max_length=4, dim=8, layers=1, heads=1))
    return Ranker(model, {}, trained=trained)


def vectors_of(made, grown, length=0.0):
    return of_newcomers(made, grown, length)[1]


def catalogue(*of_newcomers, newcomers=None):
    codes = np.array([[0, 0], [TEA, 0], [TEA, CAKE], [CAKE, 0], [0, 0], *of_newcomers], dtype=np.int32)
    size = len(codes)
    names = np.array(["", "tea", "cake", "soap"])
    return Catalogue(np.arange(size) > 0, np.ones(size), codes, np.zeros(size), names, newcomers=newcomers)


def test_the_vector_of_a_new_item_is_the_mean_of_its_categories():
    made = ranker()
    item = made.item_vectors
    tea, cake = (item[1] + item[2]) / 2, (item[2] + item[3]) / 2
    found = vectors_of(made, catalogue([TEA, 0], [TEA, CAKE], [3, CAKE]))
    assert_nearly_equal(found, torch.stack([tea, (tea + cake) / 2, cake]))


def test_without_a_known_category_the_vector_of_a_new_item_is_the_mean_of_all_items():
    made = ranker()
    found = vectors_of(made, catalogue([0, 0], [3, 0]))
    assert_nearly_equal(found, made.item_vectors[1:].mean(0).expand(2, -1))


def test_events_move_a_new_item_towards_its_neighbours_in_histories():
    made = ranker()
    met = of_histories([[1, 5], [5, 4, 1]], np.array([5, 6]), 6)
    found = vectors_of(made, catalogue([TEA, 0], [TEA, 0], newcomers=met))
    tea = (made.item_vectors[1] + made.item_vectors[2]) / 2
    near = (made.item_vectors[1] * (1 + 1 / 2) + made.item_vectors[4] * 1) / 2.5
    assert_nearly_equal(found[0], (PRIOR_EVENTS * tea + 2 * near) / (PRIOR_EVENTS + 2))
    assert_nearly_equal(found[1], tea)  # it has no events yet


def test_words_move_a_new_item_towards_the_items_that_share_them():
    made = ranker()
    item = made.item_vectors
    words = np.zeros((8, 3), np.float32)
    words[[1, 2, 5], 0] = 1  # two known items and the first newcomer have the first word
    words[3, 1] = 1
    words[6] = [0.5, 0.5, 0]
    words[7, 2] = 1  # a word of no known item
    met = replace(of_histories([[7, 1]], np.array([5, 6, 7]), 7), alike=alike(sparse.csr_matrix(words), KNOWN))
    found = vectors_of(made, catalogue([CAKE, 0], [CAKE, 0], [TEA, 0], newcomers=met))
    tea = (item[1] + item[2]) / 2
    assert_nearly_equal(found[0], tea)
    assert_nearly_equal(found[1], (tea + item[3]) / 2)
    assert_nearly_equal(found[2], (PRIOR_EVENTS * tea + item[1]) / (PRIOR_EVENTS + 1))  # its category and its one event


def test_a_new_item_with_known_words_or_events_can_get_the_usual_vector_length():
    made = ranker()
    words = np.zeros((8, 1), np.float32)
    words[[1, 2, 5], 0] = 1
    met = replace(of_histories([[7, 1]], np.array([5, 6, 7]), 7), alike=alike(sparse.csr_matrix(words), KNOWN))
    grown = catalogue([CAKE, 0], [CAKE, 0], [TEA, 0], newcomers=met)
    short, half, long = (vectors_of(made, grown, length) for length in (0.0, 0.5, 1.0))
    usual = made.item_vectors[1:].norm(dim=1).median()
    for place in (0, 2):  # item 5 has a known word, item 7 an event
        torch.testing.assert_close(long[place].norm(), usual)
        torch.testing.assert_close(torch.cosine_similarity(long[place], short[place], dim=0), torch.tensor(1.0))
        torch.testing.assert_close(half[place].norm(), (usual + short[place].norm()) / 2)
    assert torch.equal(long[1], short[1])  # of item 6 only the category is known


def test_a_word_is_represented_by_the_items_in_which_its_share_is_largest():
    shares = np.r_[0.0, np.linspace(0.1, 0.9, 2 * ITEMS_PER_WORD), 1.0][:, None]
    found = alike(sparse.csr_matrix(shares), np.ones(2 * ITEMS_PER_WORD + 1, dtype=bool)).toarray()[0]
    assert found[: ITEMS_PER_WORD + 1].tolist() == [0] * (ITEMS_PER_WORD + 1)
    assert found[ITEMS_PER_WORD + 1 :].tolist() == pytest.approx([1 / ITEMS_PER_WORD] * ITEMS_PER_WORD)


def test_new_items_get_distinct_vectors_that_are_the_same_for_the_same_catalogue():
    made, grown = ranker(), catalogue([TEA, 0], [TEA, 0])
    found = vectors_of(made, grown)
    assert (found[0] != found[1]).all()
    assert torch.equal(found, vectors_of(made, grown))


def test_counts_made_for_another_model_are_ignored():
    made = ranker()
    met = of_histories([[1, 5]], np.array([4, 5]), 5)
    assert_nearly_equal(vectors_of(made, catalogue([TEA, 0], newcomers=met)), vectors_of(made, catalogue([TEA, 0])))


def test_items_of_the_catalogue_without_training_are_new_items_too():
    """Their own vectors are what the training left of random ones: they neither count for others nor stay."""
    trained = np.array([True, True, True, False, True])
    made = ranker(trained)
    item = made.item_vectors
    words = np.zeros((6, 2), np.float32)
    words[[2, 3], 0] = 1
    words[[3, 5], 1] = 1  # a word of new items alone
    new = np.array([3, 5])
    met = replace(of_histories([[5, 1]], new, 5), alike=alike(sparse.csr_matrix(words), trained))
    found, vectors = of_newcomers(made, catalogue([CAKE, 0], newcomers=met))
    assert found.tolist() == [3, 5]
    assert_nearly_equal(vectors[0], item[2])
    together = replace(of_histories([[3, 5, 4]], new, 5), alike=met.alike)  # of its neighbours, only 4 was trained
    met_once = of_newcomers(made, catalogue([CAKE, 0], newcomers=together))[1][1]
    assert_nearly_equal(met_once, (PRIOR_EVENTS * item[2] + item[4]) / (PRIOR_EVENTS + 1))
    assert_nearly_equal(vectors[1], (PRIOR_EVENTS * item[2] + item[1]) / (PRIOR_EVENTS + 1))  # cake is item 2 alone
    nothing = catalogue([0, 0])
    assert of_newcomers(made, nothing)[0].tolist() == [5], "without evidence they keep their own"
    assert_nearly_equal(vectors_of(made, nothing)[0], item[[1, 2, 4]].mean(0))


def test_a_ranker_scores_new_items_like_all_other_items():
    made = ranker()
    vectors = torch.randn(2, 8)
    items, types = made.pad([[1, 6, 2]], [[1, 1, 1]])
    before = made.scores(items, types)
    made = made.with_newcomers(torch.tensor([5, 6]), vectors).with_recency(np.ones(7))
    after = made.scores(items, types)
    assert after.shape == (1, 7)
    assert_nearly_equal(after[:, :5], before)
    assert_nearly_equal(made.scores_of(torch.tensor([[6, 2]]), made.query(items, types)), after[:, [6, 2]])


def described(spark, *goods):
    """Items from 1 on, each given as title, category and text."""
    rows = [(number, *words) for number, words in enumerate(goods, 1)]
    return spark.createDataFrame(rows, "item_idx int, title string, category string, text string")


def test_counts_of_new_items_come_from_the_histories_that_contain_them(spark):
    rows = [
        ("a", [1, 5, 2], *[None] * 4, [1, 2, 5], None, None),
        ("b", [5, 6], *[None] * 4, [5, 6], None, None),
        ("c", [1, 2], *[None] * 4, [1, 2], None, None),
    ]
    sequences = spark.createDataFrame(rows, schemas.ddl("sequences"))
    titles = ["green tea", "black tea", "cake", None, "Tea, red", None]
    items = described(spark, *((title, "food", None) for title in titles))
    found = count(sequences, items, KNOWN, np.ones(7))
    tea, cake, unnamed = found.alike.toarray()[0, [1, 3, 4]]
    assert tea > cake > 0, "both are food, and tea is a word of it as well"
    assert unnamed == pytest.approx(cake)
    assert found.alike.toarray()[1, 1:].tolist() == pytest.approx([1 / 4] * 4), "a category alone"
    assert found.events.tolist() == [2, 1]
    assert found.followed.toarray()[0].tolist() == pytest.approx([0, 0, 1 / 2, 0, 0, 0, 1 / 2])
    assert found.neighbours.toarray()[1].tolist() == [0, 0, 0, 0, 0, 1, 0]
    assert count(sequences, items, np.ones(7, dtype=bool), np.ones(7)) is None


def test_items_without_training_are_sought_in_histories_if_they_have_recent_events(spark):
    rows = [
        (name, items, *[None] * 4, items, None, None) for name, items in [("a", [1, 2]), ("b", [1, 3]), ("c", [4, 2])]
    ]
    sequences = spark.createDataFrame(rows, schemas.ddl("sequences"))
    items = described(spark, *((title, None, None) for title in ("tea", "tea", "cake", "cake", "cake")))
    trained = np.array([True, True, False, False, True])
    found = count(sequences, items, trained, np.array([0, 2.0, 0.5, 0, 1, 0]))
    assert found.items.tolist() == [2, 3, 5]
    assert found.events.tolist() == [2, 0, 0], "item 3 has no recent event, so its sequence is not read"
    assert found.alike.toarray().tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]
    assert found.places(np.array([[1, 2], [5, 9]])).tolist() == [[-1, 0], [2, -1]]


def test_words_of_a_text_count_without_a_title_and_a_long_text_does_not_outweigh_a_title(spark):
    long = "porcelain " * 15 + "cup"
    items = described(
        spark,
        ("tea", None, None),
        (None, None, "A cup of porcelain"),
        ("cake", None, ""),
        ("soap", None, None),
        (None, None, "porcelain"),
        ("tea", None, long),
        ("cake", None, "x" * TEXT_CHARACTERS + " porcelain"),
    )
    found = of_words(items, KNOWN, 7).toarray()[:, 1:]
    assert found[0].tolist() == pytest.approx([0, 1, 0, 0])
    assert found[1].tolist() == pytest.approx([1 / 2, 1 / 2, 0, 0])
    assert found[2].tolist() == pytest.approx([0, 0, 1, 0]), "only the first words of a text count"


def test_of_a_very_large_catalogue_the_words_of_some_trained_items_and_of_all_new_ones_are_read(spark, monkeypatch):
    monkeypatch.setattr(newcomers, "DESCRIBED_ITEMS", 4)  # so only every second trained item
    items = described(spark, *((title, None, None) for title in ("tea", "tea", "tea", "cake", "cake")))
    trained = np.array([True, True, True, False, True, True])
    assert of_words(items, trained, 5).toarray().tolist() == [[0, 0, 1, 0, 0, 0]]


def test_without_any_texts_only_titles_and_categories_count(spark):
    items = described(spark, ("green tea", "food", None), ("cake", "food", ""), ("tea cake", "food", None))
    words = describe.features(items, ("category", "title"), 3)
    assert (of_words(items, np.ones(3, dtype=bool), 3) != alike(words, np.ones(3, dtype=bool))).nnz == 0
