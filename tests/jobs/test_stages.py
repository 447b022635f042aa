"""A shop that trains on purchases, after pre-training on all events, and starts from another shop's model."""

import pytest
import shop
from inside import InProcessSite

from headwater.config import Model, Targets, Train
from headwater.errors import HeadwaterError, ModelError, UsageError
from headwater.tracking import Registry

DESCRIBED = Model(dim=16, layers=1, heads=1, features=("category", "title"))
SHORT = Train(epochs=2, use_gpu=False)


@pytest.fixture(scope="module")
def site(spark, tmp_path_factory):
    site = InProcessSite(spark, tmp_path_factory.mktemp("stages"), shop.CONFIG)
    shop.write_first_day(site.landing)
    site.call("ingest_events", "ingest")
    site.call("build_sequences", "build")
    return site


def train(site, model=DESCRIBED, **settings):
    return site.call("train_model", "fit", False, model=model, train=SHORT.model_copy(update=settings))


def test_a_version_records_its_stages_and_its_curves_continue_across_them(site):
    first = train(site, refit=False)["model_version"]
    folder = Registry(site.config).download(first)
    only_bought = Targets(view=0, click=0)
    closing = train(site, start_from=str(folder), pretrain_epochs=1, targets=only_bought)
    registry, version = Registry(site.config), closing["model_version"]
    assert (closing["epochs"], closing["pretrain_epochs"]) == (3, 1)
    known = registry.facts(version)
    assert (known["pretrain_epochs"], known["start_from"]) == (1, str(folder))
    assert known["targets"] == only_bought.model_dump()
    curves = registry.history(version)
    assert [epoch for epoch, _ in curves["loss"]] == [epoch for epoch, _ in curves["epoch_ndcg_10"]] == [1, 2, 3]
    card = (registry.download(version) / "README.md").read_text()
    assert "Pre-trained on all events alike, best epoch 1; then best epoch " in card
    assert f"Started from model {folder}" in card
    assert "view 0, search 1, click 0" in card


def test_a_training_is_refused_while_the_same_training_is_running(site, monkeypatch):
    def meanwhile(*_):
        with pytest.raises(HeadwaterError, match="another training of model headwater is using"):
            train(site, learning_rate=0.1)
        raise InterruptedError

    monkeypatch.setattr("train_model.learn", meanwhile)
    with pytest.raises(InterruptedError):
        train(site)


def test_start_from_with_an_unusable_version_is_refused_by_its_number_before_training(site):
    plain = train(site, model=Model(dim=16, layers=1, heads=1), refit=False, epochs=1)["model_version"]
    with pytest.raises(ModelError, match=f"model {plain} has no item features"):
        train(site, start_from=str(plain))
    with pytest.raises(ModelError, match="has no version 99"):
        train(site, start_from="99")
    with pytest.raises(UsageError, match=r"train\.start_from: nowhere is neither a folder nor a version number"):
        train(site, start_from="nowhere")
