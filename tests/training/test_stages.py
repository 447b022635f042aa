"""Stages: which events are targets, pre-training, and starting from another site's model."""

import dataclasses
import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch

from headwater import models
from headwater.config import Config, Finetune, Model, Sequence, Targets, Train
from headwater.errors import ModelError
from headwater.models import ModelSpec, factors
from headwater.training import artifact, describe, facts, initial, readers, snapshot, train, transfer
from headwater.training.learned import Task, learn
from headwater.training.validation import Cases

START = datetime(2025, 1, 1, tzinfo=UTC)
BOUGHT = Targets(view=0, search=0, click=0, add_to_cart=0, rating=0)
STEP = "user_id string, item_idx int, event_type string, event_time timestamp, event_id string, value double"


def steps(spark, lists):
    """Each user's (item, event type) pairs, one minute apart."""
    rows = [
        (user, item, kind, START + timedelta(minutes=k), f"{user}{k}", None)
        for user, events in lists.items()
        for k, (item, kind) in enumerate(events)
    ]
    return spark.createDataFrame(rows, STEP)


def test_the_weight_of_an_event_is_its_snapshot_weight_times_that_of_its_type():
    rows = {"context": np.array([[0, 1, 5, 4]]), "weight": np.array([[0, 1, 3, 1]], np.float32)}
    weights = train.target_weights(Targets(view=0, add_to_cart=0.5))
    assert weights == [
        0,
        0,
        1,
        1,
        0.5,
        1,
        1,
        0,
    ]  # padding, view, search, click, add_to_cart, purchase, rating, impression
    assert readers.weighted(lambda _: rows, weights)("")["weight"].tolist() == [[0, 0, 3, 0.5]]


def test_the_loss_counts_only_targets_and_rows_without_a_target_do_no_harm(spark, tmp_path):
    lists = {"a": [(1, "view"), (2, "purchase"), (3, "view")], "b": [(4, "view"), (5, "view")], "c": [(3, "view")] * 2}
    spec = ModelSpec("sasrec", n_items=5, max_length=3, dim=8, layers=1, heads=1, dropout=0.0)
    rows = snapshot.training_rows(snapshot.windows(steps(spark, lists), 3, 1), 5, 3)
    data = snapshot.export(rows, tmp_path / "snapshot", {}, 1, 1)
    settings = Train(epochs=1, batch_size=1, use_gpu=False, timeout_seconds=60, learning_rate=1e-12, targets=BOUGHT)
    weights, _ = initial.weights(spec, seed=1)
    artifact.write_weights(tmp_path / "first", weights)
    planned = train.plan(data, spec, settings, tmp_path / "run", initial_weights=tmp_path / "first")
    (entry,) = train.run(planned, settings)["history"]
    model = models.build(spec)
    model.load_state_dict(weights)
    after_one = model.encode(torch.tensor([[1, 2]]), torch.tensor([[1, 5]]))[0, 0]  # 2 was bought after 1
    expected = torch.nn.functional.cross_entropy(model.item_matrix()[1:] @ after_one, torch.tensor(2 - 1))
    assert entry["loss"] == pytest.approx(expected.item(), rel=1e-5)
    nothing = settings.model_copy(update={"targets": Targets(view=0, purchase=0)})
    with pytest.raises(ModelError, match=r"every training target has weight 0; see train\.targets"):
        train.run(train.plan(data, spec, nothing, tmp_path / "nothing"), nothing)


def shoppers(count=60, length=20):
    """Every user views twelve items in a cycle; now and then they buy the item six steps after the last view."""
    rng, lists = random.Random(1), {}
    for user in range(count):
        place, events = user, []
        for _ in range(length):
            bought = rng.random() < 0.15
            events.append(((place + 5) % 12 + 1, "purchase") if bought else (place % 12 + 1, "view"))
            place += not bought
        lists[f"u{user}"] = events
    return lists


def predicted_distances(weights, spec):
    """The distance of the best item from the last view, after three views in a row, for each of twelve starts."""
    model = models.build(spec)
    model.load_state_dict(weights)
    items = (torch.arange(12).unsqueeze(1) + torch.arange(3)) % 12 + 1
    scores = model.eval().user_vectors(items, torch.ones_like(items)) @ model.item_matrix()[1:].T
    return ((scores.argmax(1) + 1 - items[:, -1]) % 12).tolist()


def test_pretraining_learns_the_next_view_and_fine_tuning_the_next_purchase(spark, tmp_path):
    config = Config(
        sequence=Sequence(max_length=20),
        model=Model(dim=16, layers=1, heads=1, dropout=0.0, initial="random"),
        finetune=Finetune(learning_rate=0.01),
        train=Train(
            pretrain_epochs=8,
            epochs=4,
            targets=BOUGHT,
            learning_rate=0.01,
            batch_size=8,
            use_gpu=False,
            reader="pyarrow",
        ),
    )
    spec = facts.spec_of(config, 12)
    frame = steps(spark, shoppers())
    found = learn(Task(spec, config, {}), frame, tmp_path)
    before = artifact.read_weights(found.answers[0]["weights"])
    assert predicted_distances(before, spec) == [1] * 12
    assert predicted_distances(found.weights, spec) == [6] * 12
    assert [entry["epoch"] for entry in found.history] == list(range(1, 13))
    assert dataclasses.astuple(found.best) == (8, 4)
    again = learn(Task(spec, config, {}, resume=True), frame, tmp_path)  # both stages are found finished
    assert again.history == found.history
    assert all(torch.equal(tensor, again.weights[name]) for name, tensor in found.weights.items())


def test_a_resumed_training_uses_the_initial_weights_of_the_first_run(spark, tmp_path, monkeypatch):
    """Factors and popularity differ in their last bits when computed with another number of cores."""
    options = Train(epochs=2, use_gpu=False, reader="pyarrow")
    config = Config(sequence=Sequence(max_length=20), model=Model(dim=16, layers=1, heads=1), train=options)
    spec, frame = facts.spec_of(config, 12), steps(spark, shoppers(12))
    one = np.ones((1, 1), dtype=np.int64)
    judged = Cases(one, one, np.array([0, 0]), one[0, :0], np.array([0, 1]), one[0] + 1, np.ones(13, np.float32))
    first = learn(Task(spec, config, {}), frame, tmp_path, judged)
    plain = factors.item_vectors
    monkeypatch.setattr(factors, "item_vectors", lambda *given: plain(*given) * (1 + 1e-6))
    judged = dataclasses.replace(judged, prior=judged.prior * np.float32(1 + 1e-6))
    resumed = learn(Task(spec, config, {}, resume=True), frame, tmp_path, judged)
    assert resumed.history == first.history
    by_chance = config.model_copy(update={"model": config.model.model_copy(update={"initial": "random"})})
    with pytest.raises(ModelError, match="belongs to another configuration; train without --resume"):
        learn(Task(spec, by_chance, {}, resume=True), frame, tmp_path, judged)


CATEGORIES = ["spades", "pots", "seeds"]


def catalogue(categories):
    """Hashed features of items 1, 2, … with these categories, as by ``describe``."""
    return describe.hashed([[], *(describe.tokens_of("category", name) for name in categories)])


def model_with_features(kind="sasrec", items=9, **shape):
    """A model of ``items`` items, of all categories in turn."""
    spec = ModelSpec(kind, n_items=items, max_length=6, **{"dim": 16, "layers": 1, "heads": 1, "dropout": 0.0} | shape)
    weights, spec = initial.weights(spec, 1, None, catalogue([CATEGORIES[k % 3] for k in range(items)]))
    model = models.build(spec)
    model.load_state_dict(weights)
    torch.nn.init.normal_(model.features.weight, std=0.1)
    return model


@pytest.mark.parametrize("kind", ["sasrec", "relative", "bert4rec", "gru"])
def test_transfer_to_another_catalogue_takes_encoder_and_features_but_no_item_vectors(kind):
    source = model_with_features(kind)
    spec = ModelSpec(kind, n_items=4, max_length=6, dim=16, layers=1, heads=1)
    spec = dataclasses.replace(spec, input_scale=4.0)  # as with random initial vectors
    weights, spec = initial.weights(spec, 2, None, catalogue(["pots", "pots", "seeds", "rakes"]), source)
    assert spec.input_scale == source.spec.input_scale
    theirs = source.state_dict()
    own = {"item.weight", "features.start", "features.bucket", "features.share"}
    assert all(torch.equal(weights[name], theirs[name]) for name in theirs.keys() - own)
    assert not weights["item.weight"][:5].any()
    assert torch.equal(weights["item.weight"][5:], theirs["item.weight"][10:])  # the mask token of bert4rec
    model = models.build(spec)
    model.load_state_dict(weights)
    here, there = model.item_matrix(), source.item_matrix() - source.item.weight[:10]
    torch.testing.assert_close(here[[1, 2, 3]], there[[2, 5, 3]])  # pots, pots, seeds


def test_factors_are_rotated_towards_the_feature_vectors_and_keep_their_angles():
    source, about = model_with_features(), catalogue(["pots", "pots", "seeds", "seeds"])
    spec = ModelSpec("sasrec", n_items=4, max_length=6, dim=16, layers=1, heads=1)
    sequences = np.array([[1, 2], [2, 1], [3, 4], [4, 3]])
    fallen, _ = initial.weights(spec, 1, sequences, about)
    turned, told = initial.weights(spec, 1, sequences, about, source)
    before, after = fallen["item.weight"][:5], turned["item.weight"][:5]
    before = before * (torch.arange(5) > 0).unsqueeze(1)
    torch.testing.assert_close(after @ after.T, before @ before.T)
    said = transfer.feature_vectors(turned, told)
    assert (after * said).sum() > 2 * (before * said).sum().abs()


@pytest.mark.parametrize("theirs", [("event_type", "gap", "value"), ("gap",)])
def test_context_weights_that_both_models_have_are_transferred(theirs):
    source, about = model_with_features(context=theirs), catalogue(CATEGORIES)
    spec = ModelSpec("sasrec", n_items=3, max_length=6, dim=16, layers=1, heads=1, context=("event_type", "gap"))
    transfer.check(source.spec, spec, "7")
    fresh, _ = initial.weights(spec, 1, None, about)
    started, spec = initial.weights(spec, 1, None, about, source)
    models.build(spec).load_state_dict(started)
    known = source.state_dict()
    for name in ("gap.weight", "event_type.weight"):
        assert torch.equal(started[name], known.get(name, fresh[name])), name


def test_a_pattern_learned_in_one_shop_holds_in_another_before_any_training(spark):
    """Users take a spade, then a pot, then seeds, any item of each; the next shop has other items of these categories."""
    torch.manual_seed(1)
    source = model_with_features(items=30).train()
    optimizer = torch.optim.AdamW(source.parameters(), lr=1e-2)
    walk = torch.arange(64 * 7).view(64, 7) % 3 + torch.arange(64).unsqueeze(1) % 3
    for _ in range(120):
        items = walk % 3 + 1 + 3 * torch.randint(10, walk.shape)
        total, count = source.loss(items, torch.ones_like(items))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    spec = ModelSpec("sasrec", n_items=6, max_length=6, dim=16, layers=1, heads=1)
    names = ["seeds", "seeds", "pots", "pots", "spades", "spades"]
    weights, spec = initial.weights(spec, 1, None, catalogue(names), source.eval())
    model = models.build(spec)
    model.load_state_dict(weights)
    history = torch.tensor([[5, 3, 1], [3, 1, 5], [1, 5, 3]])
    best = (
        (model.eval().user_vectors(history, torch.ones_like(history)) @ model.item_matrix()[1:].T)
        .topk(2, dim=1)
        .indices
    )
    assert [{names[item] for item in row} for row in best.tolist()] == [{"spades"}, {"pots"}, {"seeds"}]


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"kind": "gru"}, "model 7 has kind sasrec, but this training needs gru"),
        ({"dim": 32}, "model 7 has dim 16, but this training needs 32"),
        ({"layers": 2}, "model 7 has layers 1, but this training needs 2"),
        ({"max_length": 9}, "model 7 has max_length 6, but this training needs 9"),
    ],
)
def test_a_model_of_another_shape_is_refused_in_one_line(asked, line):
    source = model_with_features().spec
    with pytest.raises(ModelError, match=line):
        transfer.check(source, dataclasses.replace(source, **asked), "7")


def test_a_model_without_features_or_with_another_number_of_buckets_is_refused():
    source = model_with_features().spec
    with pytest.raises(ModelError, match="model 7 has no item features"):
        transfer.check(dataclasses.replace(source, feature_buckets=0), source, "7")
    with pytest.raises(ModelError, match="hashes features into 512 rows, not 16384"):
        transfer.check(dataclasses.replace(source, feature_buckets=512), source, "7")
