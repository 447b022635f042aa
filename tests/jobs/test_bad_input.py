"""Bad input ends with one clear line and the right exit code, and leaves the tables as they were."""

from datetime import timedelta

import pytest
import shop
from sites import Site

from headwater.config import load
from headwater.tracking import Registry


def assert_refused(site, job, *args, code, line, start="start"):
    ended = getattr(site, start)(job, *args)
    assert ended.returncode == code, ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{job}: "), ended.stderr
    assert line in last, ended.stderr
    assert "Traceback" not in ended.stderr
    return last


@pytest.mark.parametrize(
    ("job", "args", "line"),
    [
        ("build_sequences", ["--config", "missing.yaml"], "missing.yaml cannot be read"),
        ("build_sequences", ["--set", "no.such.key=1"], "no is not a known config key"),
        ("train_model", ["--set", "train.epochs=-1"], "train.epochs"),
        ("score_topn", ["--mode", "sideways"], "sideways"),
        ("ingest_events", ["--nope"], "No such option: --nope"),
        (
            "evaluate_model",
            ["--alias", "newest"],
            "'newest' is not one of 'champion', 'challenger', 'previous_champion'",
        ),
        ("recommend", ["--history", "look:A"], "'look:A' is not TYPE:ITEM"),
    ],
)
def test_a_bad_flag_or_key_is_exit_code_two(site, job, args, line):
    assert_refused(site(shop.CONFIG), job, *args, code=2, line=line)


def test_an_empty_landing_folder_is_no_error_but_scoring_and_training_are_refused(site):
    empty = site(shop.CONFIG)
    assert empty.run("ingest_events")["rows_in"] == 0
    assert empty.run("build_sequences")["users_changed"] == 0
    assert_refused(empty, "score_topn", "--mode", "full", code=1, line="champion", start="run_here")
    assert_refused(empty, "train_model", code=1, line="sequence", start="run_here")


def test_a_missing_landing_folder_is_named(site):
    assert_refused(
        site(shop.CONFIG), "ingest_events", "--set", "paths.landing=/no/such/folder", code=2, line="/no/such/folder"
    )


def test_a_file_that_does_not_fit_its_source_is_exit_code_two_without_a_closing_line(site):
    shop_site = site(shop.CONFIG)
    (shop_site.landing / "pos").mkdir()
    (shop_site.landing / "pos/x.csv").write_text("customer,article,at,quantity\nu1,i1,2024-05-01,1\n")
    ended = shop_site.run_here("ingest_events")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1] == (
        "ingest_events: pos/x.csv has no column 'sku', which ingest.sources names for item_id; the columns are 'customer', "
        "'article', 'at', 'quantity' (left alone; all other files were ingested)"
    )


def test_a_job_without_its_inputs_names_the_job_to_run_first(site):
    assert_refused(site(shop.CONFIG), "build_sequences", code=1, line="run jobs/ingest_events.py first")


def site_with_clicks(opened, walks):
    """A site whose users clicked on items, one per day."""
    lines = [
        shop.api_line(user, item, "click", shop.START + timedelta(days=day, minutes=minute))
        for minute, (user, items) in enumerate(walks.items())
        for day, item in enumerate(items)
    ]
    (opened.landing / "api").mkdir()
    (opened.landing / "api/clicks.json").write_text("\n".join(lines) + "\n")
    opened.run("ingest_events")
    opened.run("build_sequences")
    return opened


def model_versions(site):
    return Registry(load([site.config])).client.search_model_versions()


def test_training_on_a_single_item_is_refused(site):
    shop_site = site_with_clicks(site(shop.CONFIG), {f"u{k}": ["i1"] * 10 for k in range(5)})
    assert_refused(shop_site, "train_model", code=1, line="the catalogue has one item", start="run_here")
    assert model_versions(shop_site) == []


def test_training_on_users_with_one_event_each_is_refused(site):
    shop_site = site_with_clicks(site(shop.CONFIG), {f"u{k}": [f"i{k % 4}"] for k in range(20)})
    assert_refused(shop_site, "train_model", code=1, line="no sequence has two events to train on", start="run_here")
    assert model_versions(shop_site) == []


@pytest.fixture(scope="module")
def six_item_site(tmp_path_factory):
    """Six items known only from clicks, without a catalogue."""
    walks = {f"u{k}": [f"i{(k + step) % 6}" for step in range(10)] for k in range(12)}
    return site_with_clicks(Site(tmp_path_factory.mktemp("rounds"), shop.CONFIG), walks)


def test_features_that_no_item_has_are_refused_by_name(six_item_site):
    asked = ("--set", "model.features=[title, category]")
    line = "model.features: no item of the catalogue has a title or a category"
    assert_refused(six_item_site, "train_model", *asked, code=1, line=line, start="run_here")
    assert model_versions(six_item_site) == []


def test_a_training_that_diverges_registers_nothing_and_resumes_from_the_last_finite_epoch(six_item_site):
    """An epoch is one step here. The first makes the weights explode, and the loss of the second is no longer finite."""
    exploding = "train={epochs: 3, batch_size: 1000, learning_rate: 1.0e+30, clip_norm: 1.0e+30}"
    line = "train_model: training failed: the loss is no longer finite in epoch 2; lower train.learning_rate"
    for resume in ([], ["--resume"]):
        ended = six_item_site.run_here("train_model", "--set", exploding, *resume)
        assert (ended.returncode, ended.stdout, ended.stderr.splitlines()[-1]) == (1, "", line)
        assert ("epoch 1/3: " in ended.stderr) is (not resume)  # a resumed run does not repeat epoch 1
        (kept,) = (six_item_site.warehouse / "_work/training").glob("*/tried/run/checkpoints/*.safetensors")
        assert kept.name == "epoch-00001.safetensors"
        continued = kept.parents[3] / "versions.json"
        assert not continued.exists(), "the next training reads the newest events, on which it may not diverge"
    assert model_versions(six_item_site) == []
