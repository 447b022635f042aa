"""Lists that must never be published: unfit lists, and lists by a missing or damaged model. One line reports the reason, and the
current lists stay."""

from datetime import timedelta

import pytest
import shop
import torch
from pyspark.sql import functions as F
from sites import copy_of

from headwater.config import load
from headwater.nearline import lists
from headwater.nearline.cache import ScoringCache
from headwater.scoring import executors
from headwater.tracking import Registry, runs
from headwater.tracking.registry import CHAMPION
from headwater.training import artifact

LIST_TABLES = ("topn", "sections", "topn_history")
JOBS = [("score_topn", "--mode", "full"), ("nearline", "--once")]


@pytest.fixture
def site(trained, tmp_path):
    """A site with a new click, so that nearline has a list to make too."""
    site = copy_of(trained, tmp_path / "site")
    click = shop.api_line("u1", "i3", "click", shop.START + timedelta(days=16))
    (site.landing / "api/day2.json").write_text(click + "\n")
    return site


def assert_refused(site, spark, job, *args, line):
    """The job fails with its own error line, and the tables of lists keep their commits and rows."""
    before = [(site.commits(table), site.rows(spark, table)) for table in LIST_TABLES]
    ended = site.run_here(job, *args)
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{job}: "), ended.stderr
    assert line in last
    assert "HEADWATER_DEBUG" not in last, "the line names an error that nobody foresaw"
    assert "Traceback" not in ended.stderr
    assert [(site.commits(table), site.rows(spark, table)) for table in LIST_TABLES] == before


def replace_column(monkeypatch, column, made_of):
    """Replace a column of all lists made from now on by an SQL expression."""
    made = executors.recommend
    monkeypatch.setattr(executors, "recommend", lambda *args: made(*args).withColumn(column, F.expr(made_of)))


@pytest.mark.parametrize(
    ("column", "made_of"),
    [
        ("score", "transform(score, one -> if(user_id = 'u1', double('NaN'), one))"),
        ("item_idx", "transform(item_idx, (item, place) -> if(user_id = 'u1' AND place = 0, 41, item))"),
    ],
    ids=["no number", "beyond the catalogue"],
)
@pytest.mark.parametrize("few", [0, lists.MAX_COLLECTED_ROWS], ids=["of many users", "in hand"])
def test_invalid_lists_of_one_user_prevent_all_lists_from_being_published(
    site, spark, monkeypatch, column, made_of, few
):
    monkeypatch.setattr(lists, "MAX_COLLECTED_ROWS", few)
    replace_column(monkeypatch, column, made_of)
    line = "3 of the new lists by model version 1 are not fit to publish; topn is unchanged"
    assert_refused(site, spark, "score_topn", "--mode", "full", line=line)


def test_an_item_whose_row_was_removed_by_hand_is_named(site, spark, monkeypatch):
    """No list should contain such an item; if one does, a query finds it while the lists are written."""
    monkeypatch.setattr(lists, "MAX_COLLECTED_ROWS", 0)
    path = str(site.warehouse / "items")
    monkeypatch.setattr(ScoringCache, "items", lambda _: spark.read.format("delta").load(path).where("item_idx <> 7"))
    replace_column(
        monkeypatch, "item_idx", "transform(array_remove(item_idx, 7), (item, place) -> if(place = 0, 7, item))"
    )
    replace_column(monkeypatch, "rank", "sequence(1, size(item_idx))")
    line = "table items lacks item_idx 7, which a new list contains; was its row removed by hand?"
    assert_refused(site, spark, "score_topn", "--mode", "full", line=line)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job[0])
def test_without_a_champion_the_lists_stay_and_the_error_names_the_job_to_run(site, spark, job):
    registry = Registry(load([site.config]))
    registry.client.delete_registered_model_alias(registry.name, CHAMPION)
    assert_refused(site, spark, *job, line="has no champion yet; run jobs/train_model.py first")


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job[0])
def test_a_model_file_with_another_checksum_is_named_and_the_lists_stay(site, spark, job):
    (weights,) = site.warehouse.glob("_work/models/headwater/1-*/weights.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert_refused(site, spark, *job, line=f"{weights} is missing or damaged (its SHA-256 is not the recorded one)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_and_the_lists_stay(site, spark, tmp_path, value):
    """Their checksum is correct: the training saved them like this."""
    config = load([site.config])
    registry = Registry(config)
    model, facts = artifact.load(registry.download(1))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    next(tensor for tensor in weights.values() if torch.is_floating_point(tensor)).view(-1)[0] = value
    artifact.save(tmp_path / "bad", weights, model.spec, facts)
    version = runs.log_training(registry, config, tmp_path / "bad", facts, [{"epoch": 1, "loss": 1.0}], "train_model")
    registry.set_alias(CHAMPION, version)
    for job in JOBS:
        assert_refused(site, spark, *job, line="holds values that are not finite")
