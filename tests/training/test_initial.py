"""Initial weights of a training: catalogue features, and item vectors from co-occurrence."""

import numpy as np
import pytest
import torch

from headwater import models
from headwater.config import Config, Model
from headwater.errors import UsageError
from headwater.models import ModelSpec
from headwater.training import describe, facts, grow, initial

GOODS = [
    (1, "Garden|Tools", "Red spade", None),
    (2, "Garden", "Blue spade", ""),
    (3, None, None, None),
    (9, "Garden", "beyond what the model knows", None),
]


@pytest.fixture
def goods(spark):
    return spark.createDataFrame(GOODS, "item_idx int, category string, title string, text string")


def test_categories_and_words_become_shares_that_sum_to_one(goods):
    found = describe.features(goods, ("category", "title"), 3)
    np.testing.assert_allclose(found.sum(axis=1).A1, [0, 1, 1, 0], rtol=1e-6)  # padding, two items, one without words
    assert [row.nnz for row in found] == [0, 4, 3, 0]
    shared = set(found[1].indices) & set(found[2].indices)
    assert len(shared) == 2  # Garden and spade
    rare = set(found[1].indices) - shared
    assert min(found[1, column] for column in rare) > max(found[1, column] for column in shared)


def test_category_features_are_distinct_from_words_of_a_title():
    assert describe.tokens_of("category", "Red; green ") == ["category=red", "category=green"]
    assert describe.tokens_of("title", "Red, green!") == ["red", "green"]
    assert describe.tokens_of("text", None) == []


@pytest.fixture
def write_vectors(spark, tmp_path):
    """A function that writes vectors of items i1, i2, … to a file; returns a catalogue of items 1, 2, 3 and 9, and the path."""

    def write(*vectors):
        path = str(tmp_path / "vectors.parquet")
        rows = [(f"i{number}", [float(value) for value in vector]) for number, vector in enumerate(vectors, start=1)]
        spark.createDataFrame(rows, "item_id string, vector array<double>").write.parquet(path)
        items = [(f"i{number}", number, "Garden") for number in (1, 2, 3, 9)]
        return spark.createDataFrame(items, "item_id string, item_idx int, category string"), path

    return write


def test_vectors_from_a_file_become_features_of_length_one(write_vectors):
    items, path = write_vectors([3, 4], [0, 0], [-1, 0], [7, 7])
    found = describe.features(items, ("vector",), 3, path)
    assert found.shape == (4, describe.BUCKETS)
    np.testing.assert_allclose(found[:, :2].toarray(), [[0, 0], [0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)
    beside = describe.features(items, ("category", "vector"), 3, path)
    np.testing.assert_allclose((beside - describe.features(items, ("category",), 3) - found).toarray(), 0, atol=1e-6)


def test_vectors_without_a_known_item_or_without_numbers_are_refused(write_vectors, spark, tmp_path):
    items, path = write_vectors([1, 2])
    with pytest.raises(UsageError, match="has no vector for any catalogue item"):
        describe.features(items.where("item_id = 'i9'"), ("vector",), 9, path)
    for name, rows, shape, line in (
        ("none", [("i1", [])], "item_id string, vector array<double>", "an empty vector for item i1"),
        ("words", [("i1", ["a"])], "item_id string, vector array<string>", "a column vector of string, not of numbers"),
        ("numbers", [(1, [1.0])], "item_id bigint, vector array<double>", "no vector for any catalogue item"),
    ):
        spark.createDataFrame(rows, shape).write.parquet(f"{tmp_path}/{name}")
        with pytest.raises(UsageError, match=line):
            describe.features(items, ("vector",), 9, f"{tmp_path}/{name}")


def test_long_vectors_are_projected_with_their_angles_and_independently_of_other_items(write_vectors):
    draws = np.random.default_rng(1)
    one = draws.normal(size=500)
    items, path = write_vectors(one, one + 0.3 * draws.normal(size=500), draws.normal(size=500))
    found = describe.features(items, ("vector",), 3, path)
    near, far = (found[1] @ found[k].T for k in (2, 3))
    assert near[0, 0] > 0.9
    assert abs(far[0, 0]) < 0.4
    alone = describe.features(items.where("item_idx = 2"), ("vector",), 3, path)
    np.testing.assert_allclose(alone[2].toarray(), found[2].toarray(), atol=1e-6)


def test_vectors_of_different_lengths_or_a_missing_file_are_a_one_line_error(write_vectors):
    items, path = write_vectors([1, 2], [3])
    with pytest.raises(UsageError, match="has vectors of different lengths, 1 and 2"):
        describe.features(items, ("vector",), 3, path)
    with pytest.raises(UsageError, match=r"nowhere is not a Parquet file with the columns item_id and vector"):
        describe.features(items, ("vector",), 3, path + "/nowhere")


def test_a_model_with_vector_features_needs_a_vectors_file_in_the_current_config(write_vectors):
    items, _ = write_vectors([1, 2])
    with pytest.raises(UsageError, match="vectors is empty, but the model has the feature 'vector'; name a Parquet"):
        describe.features(items, ("vector",), 3, Config().model.vectors)


def test_a_vector_that_is_not_finite_is_refused_with_its_item(write_vectors):
    items, path = write_vectors([1, 2], [3, float("nan")])
    with pytest.raises(UsageError, match="a vector that is not finite for item i2"):
        describe.features(items, ("vector",), 3, path)


def test_random_initial_vectors_get_a_larger_input_scale_unless_the_config_sets_one():
    def scale(**model):
        return facts.spec_of(Config(model=Model(dim=64, **model)), 5).input_scale

    assert (scale(), scale(initial="random"), scale(initial="random", input_scale=2.0)) == (1.0, 8.0, 2.0)


@pytest.mark.parametrize("kind", sorted(models.ENCODERS))
def test_an_item_is_the_sum_of_its_own_vector_and_its_features(goods, kind):
    spec = ModelSpec(kind, n_items=3, max_length=4, dim=8, layers=1, heads=1)
    weights, described = initial.weights(spec, seed=1, described=describe.features(goods, ("category", "title"), 3))
    model = models.build(described)
    model.load_state_dict(weights)
    own = model.item.weight[:4].detach().clone()
    assert torch.equal(model.item_matrix(), own)  # feature vectors start at zero
    torch.nn.init.normal_(model.features.weight)
    matrix = describe.features(goods, ("category", "title"), 3).toarray()
    expected = own + torch.from_numpy(matrix) @ model.features.weight
    torch.testing.assert_close(model.item_matrix(), expected)
    torch.testing.assert_close(model.item_rows(torch.tensor([2, 0, 1])), expected[[2, 0, 1]])
    history, kinds = torch.tensor([[0, 1, 2], [3, 3, 1]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
    plain = models.build(spec).eval()
    plain.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("features.")})
    with torch.no_grad():
        plain.item.weight[:4] = expected
    torch.testing.assert_close(model.eval().user_vectors(history, kinds), plain.user_vectors(history, kinds))


def test_item_vectors_start_from_co_occurrence_and_all_other_weights_from_the_seed():
    spec = ModelSpec("sasrec", n_items=12, max_length=4, dim=16, layers=1, heads=1)
    sequences = np.array([[1, 2, 3], [1, 2, 4], [5, 6, 7], [5, 6, 8]])
    weights, same = initial.weights(spec, seed=1, sequences=sequences)
    assert same == spec
    chance, _ = initial.weights(spec, seed=1)
    vectors = torch.nn.functional.normalize(weights["item.weight"], dim=1)
    assert vectors[1] @ vectors[2] > 0.5 > vectors[1] @ vectors[5]
    assert torch.equal(weights["position.weight"], chance["position.weight"])


def test_the_vector_of_a_new_item_in_a_grown_model_is_that_of_its_features(goods):
    spec = ModelSpec("sasrec", n_items=2, max_length=4, dim=8, layers=1, heads=1)
    columns = ("category", "title")
    weights, spec = initial.weights(spec, seed=1, described=describe.features(goods, columns, 2))
    weights["features.weight"] = torch.randn_like(weights["features.weight"])
    grown, larger = grow.grow(weights, spec, 9, seed=1, described=describe.features(goods, columns, 9))
    model = models.build(larger)
    model.load_state_dict(grown)
    told = torch.from_numpy(describe.features(goods, columns, 9).toarray()) @ grown["features.weight"]
    torch.testing.assert_close(model.item_matrix()[9], told[9])
    torch.testing.assert_close(model.item_matrix()[1], weights["item.weight"][1] + told[1])
