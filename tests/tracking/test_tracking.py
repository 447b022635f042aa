"""Runs and the registry with a real MLflow store: what is logged, what is loaded back, and the cost of a store that is down."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
import torch
import yaml

from headwater import local
from headwater.config import Config
from headwater.errors import ModelError, TrackingError
from headwater.models import ModelSpec, build
from headwater.tracking import Registry, runs
from headwater.tracking.client import REQUEST_TIMEOUT, transfers, without_password
from headwater.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS
from headwater.tracking.runs import redacted
from headwater.training import artifact
from headwater.work import prune, work_folder

SPEC = ModelSpec("sasrec", n_items=6, max_length=4, dim=8, layers=1, heads=1)
FACTS = {
    "kind": "sasrec", "n_items": 6, "max_length": 4, "protocol": "temporal", "seed": 1, "code_revision": "abc123",
    "sequences_version": 3, "events_version": 5, "sequences": 40, "best_epoch": 2,
    "train_until": "2025-01-01T00:00:00+00:00", "validation_until": "2025-01-02T00:00:00+00:00",
}  # fmt: skip
HISTORY = [{"epoch": 1, "loss": 2.0, "epoch_ndcg_10": 0.1}, {"epoch": 2, "loss": 1.5, "epoch_ndcg_10": 0.2}]


def make_config(folder, uri="", **mlflow):
    return Config(
        paths={"warehouse": str(folder / "warehouse")}, mlflow={"tracking_uri": uri, "timeout_seconds": 2, **mlflow}
    )


def register(config, folder, seed=1, history=HISTORY, training=""):
    """Register a model with weights drawn by ``seed``; returns its version."""
    torch.manual_seed(seed)
    artifact.save(folder / f"model{seed}", build(SPEC).state_dict(), SPEC, FACTS)
    return runs.log_training(Registry(config), config, folder / f"model{seed}", FACTS, history, "train_model", training)


def test_a_training_is_registered_once_and_stays_the_challenger_until_a_newer_one_is(tmp_path):
    config = make_config(tmp_path)
    registry = Registry(config)
    assert register(config, tmp_path, training="one") == 1
    registry.client.delete_registered_model_alias(registry.name, CHALLENGER)  # as if killed before it was set
    assert register(config, tmp_path, training="one") == 1
    assert registry.alias(CHALLENGER) == 1
    assert register(config, tmp_path, seed=2, training="two") == 2
    assert register(config, tmp_path, training="one") == 1
    assert (registry.alias(CHAMPION), registry.alias(CHALLENGER)) == (1, 2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A config whose store holds two versions, logged from an empty working directory."""
    folder = tmp_path_factory.mktemp("store")
    config = make_config(folder)
    with pytest.MonkeyPatch.context() as patch:
        (folder / "cwd").mkdir()
        patch.chdir(folder / "cwd")
        assert [register(config, folder, seed) for seed in (1, 2)] == [1, 2]
    return folder, config


def test_a_store_can_be_given_relative_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(tmp_path, "sqlite:///mlflow.db")
    assert register(config, tmp_path) == 1
    assert (tmp_path / "_mlflow").is_dir()
    assert Registry(config).download(1).is_dir()


def test_unused_folders_are_pruned_from_the_work_folder_and_fetched_again(tmp_path):
    config = make_config(tmp_path)
    registry = Registry(config)
    unused, used = (registry.download(register(config, tmp_path, seed)) for seed in (1, 2))
    given_up = work_folder(config) / "training" / "0123456789abcdef"
    (given_up / "run").mkdir(parents=True)
    for folder in (unused, used, given_up):
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (1_000, 1_000))
    registry.download(2)
    assert prune(config, 999) == 0
    assert prune(config, 2_000) == 2
    assert (unused.exists(), used.exists(), given_up.exists()) == (False, True, False)
    assert registry.download(1) == unused
    assert prune(Config(paths={"warehouse": "s3://bucket/site"}), 2_000) == 0


def test_a_warehouse_path_may_contain_blanks_and_non_ascii_letters(tmp_path):
    folder = tmp_path / "a bü"
    folder.mkdir()
    config = make_config(folder)
    assert Registry(config).download(register(config, folder)).is_dir()
    assert local.folder((folder / "warehouse").as_uri()) == folder / "warehouse"


def test_the_first_version_is_champion_and_the_newest_challenger(store):
    registry = Registry(store[1])
    assert (registry.alias(CHAMPION), registry.alias(CHALLENGER), registry.alias("previous_champion")) == (1, 2, None)


def test_nothing_is_left_in_the_working_directory(store):
    assert list((store[0] / "cwd").iterdir()) == []


def test_a_run_holds_settings_curves_data_versions_and_environment(store):
    registry = Registry(store[1])
    run = registry.client.get_run(registry.version(2).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "30"
    assert run.data.params["mlflow.model_name"] == "headwater"
    assert run.data.tags["mlflow.source.git.commit"] == "abc123"
    assert registry.history(2)["loss"] == [(1, 2.0), (2, 1.5)]
    inputs = {entry.dataset.name: entry.dataset for entry in run.inputs.dataset_inputs}
    assert {name: dataset.digest for name, dataset in inputs.items()} == {"sequences": "v3", "events": "v5"}
    assert {dataset.source_type for dataset in inputs.values()} == {"delta_table"}
    logged = {entry.path for entry in registry.client.list_artifacts(run.info.run_id)}
    assert logged == {"loss.png", "config.json", "environment.txt", "model"}


def test_a_run_shows_no_secret_of_the_config():
    keys = {"spark.hadoop.fs.s3a.secret.key": "s3cret", "spark.executor.memory": "2g"}
    shown = redacted(Config(spark=keys, mlflow={"tracking_uri": "http://me:s3cret@host"}))
    assert shown["spark"] == {**keys, "spark.hadoop.fs.s3a.secret.key": "***"}
    assert "s3cret" not in json.dumps(shown)


def git(folder, *args):
    who = ("-c", "user.name=ann", "-c", "user.email=ann@example.org")
    return subprocess.run(["git", *who, *args], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_a_revision_is_the_commit_of_the_code_and_says_whether_the_code_has_changed_since(tmp_path):
    module = tmp_path / "lib" / "headwater" / "tracking" / "runs.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    git(tmp_path, "init")
    assert runs.code_revision(module).startswith("headwater ")  # the module is not tracked by this repository
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "site.yaml").write_text("")  # the config is recorded separately
    assert runs.code_revision(module) == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "new.py").write_text("")
    assert runs.code_revision(module) == git(tmp_path, "rev-parse", "HEAD") + "-dirty"


def test_without_git_a_revision_is_the_version_of_the_package(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert runs.code_revision().startswith("headwater ")


@pytest.mark.parametrize(
    "key",
    [
        "spark.hadoop.fs.azure.account.key.shop.dfs.core.windows.net",
        "spark.hadoop.fs.azure.sas.lake.shop.blob.core.windows.net",
        "spark.hadoop.fs.gs.auth.service.account.private.key",
        "spark.hadoop.google.cloud.auth.service.account.private.key.id",
        "spark.hadoop.fs.s3a.encryption.key",
        "spark.hadoop.fs.s3a.bucket.lake.access.key",
        "spark.executorEnv.AWS_ACCESS_KEY_ID",
    ],
)
def test_a_run_shows_no_key_of_a_cloud_store(key):
    assert redacted(Config(spark={key: "s3cret"}))["spark"] == {key: "***"}


def test_a_run_shows_no_secret_within_the_value_of_a_setting():
    java = {"spark.driver.extraJavaOptions": "-Djavax.net.ssl.trustStorePassword=s3cret"}
    assert redacted(Config(spark=java))["spark"] == {"spark.driver.extraJavaOptions": "***"}


def test_settings_that_are_not_secret_are_shown():
    settings = {"spark.sql.shuffle.partitions": "8", "spark.ssl.keyStore": "/etc/keys", "spark.sql.keyed": "a"}
    assert redacted(Config(spark=settings))["spark"] == settings


@pytest.mark.parametrize("password", ["p", "p/ss", "p@ss", "p:s/s@s"])
def test_a_password_is_masked_even_with_special_characters(password):
    told = f"postgresql://u:{password}@h:5432/db and then mysql://v:{password}@i/db"
    assert without_password(told) == "postgresql://u:***@h:5432/db and then mysql://v:***@i/db"
    assert without_password("http://h:5000/p and a@b") == "http://h:5000/p and a@b"


def test_the_model_has_a_signature_and_nothing_that_mlflow_would_execute(store):
    described = yaml.safe_load((Registry(store[1]).download(2) / "MLmodel").read_text())
    assert set(described["flavors"]) == {"headwater"}
    assert '"items"' in described["signature"]["inputs"]
    assert "[-1, 4]" in described["signature"]["inputs"]
    assert "[-1, 7]" in described["signature"]["outputs"]


def test_the_card_says_what_the_model_has_seen(store):
    card = (Registry(store[1]).download(1) / "README.md").read_text()
    assert "`sequences` version 3: 40 sequences, events before 2025-01-01" in card
    assert "Best epoch 2 of 2" in card


@pytest.mark.parametrize(
    ("facts", "learned", "rest"),
    [
        ({}, "events before 2025-01-01", "later events validate and test it"),
        ({"refit": True}, "events before 2025-01-01", "later events test it"),
        ({"parent_version": 4}, "events before 2025-01-01", "later events test it"),
        ({"protocol": "leave_one_out"}, "all but the last two events of each", "validates and the second tests it"),
        ({"protocol": "leave_one_out", "refit": True}, "all but the last event of each", "that one tests it"),
    ],
)
def test_the_card_says_what_was_held_out_and_what_for(tmp_path, facts, learned, rest):
    cut = {"train_until": ""} if "protocol" in facts else {}
    runs.write_card(tmp_path, {**FACTS, **cut, **facts}, HISTORY)
    first, second = (tmp_path / "README.md").read_text().splitlines()[2:4]
    assert f"40 sequences, {learned}" in first
    assert second.endswith(f"{rest}.")


def test_a_version_is_loaded_with_its_facts_and_its_own_weights(store):
    registry = Registry(store[1])
    assert registry.facts(1) == FACTS
    torch.manual_seed(2)
    wanted = build(SPEC).state_dict()
    model, _ = artifact.load(registry.download(2))
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


def test_a_fetched_model_that_was_damaged_is_refused_by_name(store):
    registry = Registry(store[1])
    weights = registry.download(1) / artifact.WEIGHTS
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ModelError, match=r"weights\.safetensors is missing or damaged"):
        registry.download(1)
    weights.write_bytes(good)


def test_the_same_version_number_of_another_store_is_another_model(store):
    folder, config = store
    first = Registry(config).download(1)
    other = make_config(folder, uri=f"sqlite:///{folder}/other.db")
    assert register(other, folder, seed=3) == 1
    assert Registry(other).download(1) != first


def test_an_unknown_version_is_a_one_line_error(store):
    with pytest.raises(ModelError, match="model headwater has no version 9"):
        Registry(store[1]).download(9)


def test_without_a_champion_the_error_names_the_job_to_run(store):
    config = make_config(store[0], model_name="another")
    with pytest.raises(ModelError, match=r"another has no champion yet; run jobs/train_model\.py first"):
        Registry(config).need_champion()
    registry = Registry(make_config(store[0], model_name="champion removed"))
    registry.client.create_registered_model(registry.name)
    registry.client.create_model_version(registry.name, "nowhere")
    registry.set_alias(PREVIOUS, 1)
    with pytest.raises(ModelError, match=r"no longer has a champion; run jobs/promote_model\.py --rollback"):
        registry.need_champion()


def test_metrics_are_logged_to_the_run_of_their_version(store):
    registry = Registry(store[1])
    registry.log_metrics(1, {"test_ndcg_10": 0.25})
    assert registry.history(1)["test_ndcg_10"] == [(0, 0.25)]


def test_a_long_training_keeps_every_epoch(store):
    folder, config = store
    config = make_config(folder, model_name="long")
    history = [{"epoch": k, "loss": 1 / k, "epoch_ndcg_10": 0.1} for k in range(1, 601)]
    version = register(config, folder, seed=4, history=history)
    assert len(Registry(config).history(version)["loss"]) == 600


def test_a_setting_of_any_name_and_length_is_logged(store):
    folder, config = store
    bloom, longest = "spark.hadoop.parquet.bloom.filter.enabled#item_id", f"spark.a/b//{'c' * 300}"
    spark = {bloom: "true", bloom.replace("#", "/"): "true", longest: "v" * 7_000}
    config = config.model_copy(update={"spark": spark})
    registry = Registry(config)
    shown = registry.client.get_run(registry.version(register(config, folder, seed=6)).run_id).data.params
    assert shown["spark.spark.hadoop.parquet.bloom.filter.enabled_item_id"] == "true"
    assert shown[f"spark.{longest}".replace("/", "_")[:250]] == "v" * 6_000


def test_a_training_that_cannot_be_logged_leaves_a_failed_run_and_no_version(store, monkeypatch):
    folder, _ = store
    config = make_config(folder, model_name="never", experiment="never")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(runs, "_draw_curves", full)
    with pytest.raises(TrackingError, match="No space left on device"):
        register(config, folder, seed=5)
    registry = Registry(config)
    assert registry.alias(CHALLENGER) is None
    experiment = registry.client.get_experiment_by_name("never").experiment_id
    assert [run.info.status for run in registry.client.search_runs([experiment])] == ["FAILED"]


def seconds_until_refused(config, line):
    start = time.monotonic()
    with pytest.raises(TrackingError, match=line) as refused:
        Registry(config).alias(CHAMPION)
    assert "\n" not in str(refused.value)
    return time.monotonic() - start


def test_a_deleted_experiment_is_an_error_before_the_training(store):
    _, config = store
    other = config.model_copy(update={"mlflow": config.mlflow.model_copy(update={"experiment": "gone"})})
    registry = Registry(other)
    runs.check(registry, other)
    registry.client.delete_experiment(registry.client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(TrackingError, match="MLflow's experiment gone is deleted; restore it, or set "):
        runs.check(registry, other)


def test_a_file_has_more_time_than_another_request(store):
    Registry(store[1]).alias(CHAMPION)
    limit = os.environ[REQUEST_TIMEOUT]
    with transfers():
        assert float(os.environ[REQUEST_TIMEOUT]) > float(limit)
    assert os.environ[REQUEST_TIMEOUT] == limit


def test_a_closed_port_is_an_error_with_the_address_and_without_the_password(tmp_path):
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        config = make_config(tmp_path, f"http://ann:s3cret@127.0.0.1:{taken.getsockname()[1]}")
        line = r"MLflow at http://ann:\*\*\*@127\.0\.0\.1:\d+ cannot be reached .*; check mlflow\.tracking_uri"
        assert seconds_until_refused(config, line) < 10


def test_a_server_that_accepts_and_never_answers_costs_the_timeout_and_no_more(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        config = make_config(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert seconds_until_refused(config, "no answer in 2 s") < 10


def test_a_locked_store_costs_the_timeout_and_no_more(tmp_path):
    config = make_config(tmp_path)
    Registry(config).alias(CHAMPION)
    with closing(sqlite3.connect(tmp_path / "warehouse/mlflow.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert seconds_until_refused(config, r"mlflow\.db cannot be used: database is locked") < 15
        holder.execute("ROLLBACK")
    assert Registry(config).alias(CHAMPION) is None


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "notes.db").write_text("not a database, but long enough to be read as the header of one" * 20)
    config = make_config(tmp_path, f"sqlite:///{tmp_path}/notes.db")
    assert seconds_until_refused(config, r"notes\.db cannot be used: file is not") < 15


def test_two_jobs_can_create_the_store_at_the_same_time(tmp_path):
    ask = (
        "from headwater.config import Config; from headwater.tracking import Registry; "
        f"print(Registry(Config(paths={{'warehouse': {str(tmp_path)!r}}})).alias('champion'))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out.strip()) == (0, "None"), err
