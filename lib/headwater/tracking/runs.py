"""One MLflow run per training: parameters, curves, data versions, environment, and the model as a version."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater import local
from headwater.config import Config
from headwater.errors import TrackingError
from headwater.tracking.client import mlflow_errors, transfers, without_password
from headwater.tracking.registry import FEEDBACK_UNTIL, PARENT, TRAINING, Registry

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

SECRET = re.compile(r"(?i)secret|password|token|credential|jaas|(access|account|private)[._]?key|\b(key|sas)\b")
"""Spark settings that are masked, by name or, as in Spark's own log, by value: what it redacts, the credentials of Kafka's
clients, and the keys of cloud stores, whose names may go on after the word."""
VERSION_TAGS = (PARENT, FEEDBACK_UNTIL)
"""Facts that are also tags of a version, so that versions can be found by them."""
PACKAGES = ("pyspark", "delta-spark", "petastorm", "pyarrow", "numpy", "torch", "mlflow", "safetensors", "headwater")


def log_training(
    registry: Registry,
    config: Config,
    model: Path,
    facts: dict[str, Any],
    history: list[dict[str, float]],
    stage: str,
    training: str = "",
) -> int:
    """Log a finished training and register its model folder; returns the new version.

    The version becomes the challenger, and also the champion if there is none. It is registered only after everything has been
    uploaded, and once: ``training``, the id of a training that may be resumed, finds the version that it has made.
    """
    from mlflow.entities import Metric, Param, RunTag

    if training and (made := registry.made_by(training)):
        registry.offer(made)
        return made
    client, name = registry.client, registry.name
    with mlflow_errors(registry.uri):
        run = client.create_run(
            _experiment(registry, config),
            run_name=f"{stage}-{facts['kind']}",
            tags={
                "mlflow.source.name": f"jobs/{stage}.py",
                "mlflow.source.git.commit": facts["code_revision"],
                "stage": stage,
            },
        )
        run_id = run.info.run_id
    with _failed_on_error(registry, run_id), mlflow_errors(registry.uri):
        now = int(time.time() * 1000)
        settings = redacted(config)
        params = [Param(key, value) for key, value in _params(settings).items()]
        metrics = [
            Metric(key, float(value), now, int(entry["epoch"]))
            for entry in history
            for key, value in entry.items()
            if key != "epoch"
        ]
        client.log_batch(run_id, tags=[RunTag(key, str(value)[:4000]) for key, value in facts.items()])
        for start in range(0, len(params), 100):  # the most that a server accepts at once
            client.log_batch(run_id, params=params[start : start + 100])
        for start in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[start : start + 1000])
        _log_datasets(client, run_id, config, facts)
        with tempfile.TemporaryDirectory() as scratch:
            _draw_curves(history, Path(scratch) / "loss.png")
            (Path(scratch) / "config.json").write_text(json.dumps(settings, indent=1))
            (Path(scratch) / "environment.txt").write_text(environment())
            with transfers():
                client.log_artifacts(run_id, scratch)
        write_card(model, facts, history)
        _write_mlmodel(model, run_id, facts)
        with transfers():
            client.log_artifacts(run_id, str(model), "model")
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        source = f"{run.info.artifact_uri}/model"
        tags = {"stage": stage} | {tag: str(facts[tag]) for tag in VERSION_TAGS if facts.get(tag)}
        if training:
            tags[TRAINING] = training
        version = int(client.create_model_version(name, source, run_id, tags=tags).version)
        client.set_terminated(run_id)
    registry.offer(version)
    return version


def check(registry: Registry, config: Config) -> None:
    """Raises TrackingError now if the store does not answer or the experiment is deleted, which would end ``log_training``."""
    with mlflow_errors(registry.uri):
        _experiment(registry, config)


@contextmanager
def _failed_on_error(registry: Registry, run_id: str) -> Iterator[None]:
    """Mark the run as failed if logging it raises an error."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            registry.client.set_terminated(run_id, "FAILED")
        raise


def redacted(config: Config) -> dict[str, Any]:
    """The config as plain data with its secrets masked: Spark settings that match ``SECRET``, and passwords in URIs."""
    settings = config.dump()
    settings["spark"] = {
        key: "***" if SECRET.search(key) or SECRET.search(value) else value for key, value in settings["spark"].items()
    }
    return dict(json.loads(without_password(json.dumps(settings))))


def code_revision(module: Path = Path(__file__).resolve()) -> str:
    """The commit of the running code, with `-dirty` where package or jobs have changed since; the package's version outside a
    checkout. A virtual environment may lie in some other repository, which does not track the code."""
    if _git(module, "ls-files", "--error-unmatch", module.name):
        changed = _git(module, "status", "--porcelain", "--", str(module.parents[1]), ":/jobs")
        return f"{_git(module, 'rev-parse', 'HEAD')}{'-dirty' if changed else ''}"
    from headwater import __version__

    return f"headwater {__version__}"


def _git(module: Path, *args: str) -> str:
    """What git says of a module's repository; nothing if it fails."""
    try:
        done = subprocess.run(["git", *args], cwd=module.parent, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def environment() -> str:
    """The versions of the packages that a model depends on, one per line."""
    lines = []
    for package in PACKAGES:
        try:
            lines.append(f"{package}=={metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return "\n".join(lines) + "\n"


def write_card(model: Path, facts: dict[str, Any], history: list[dict[str, float]]) -> None:
    """Write the model card: kind, training data, protocol, loss, target weights, and limits of the model."""
    last = history[-1] if history else {}
    learned, held_out = _held_out(facts)
    text = f"""# {facts["kind"]}, {facts["n_items"]} items

- Trained on `sequences` version {facts["sequences_version"]}: {facts["sequences"]} sequences, {learned}.
- Protocol {facts["protocol"]}; {held_out} it.
- {_stages(facts, len(history))}; last loss {last.get("loss", float("nan")):.4f}.
- Target weights: {", ".join(f"{name} {weight:g}" for name, weight in facts.get("targets", {}).items()) or "all 1"}.
- Seed {facts["seed"]}, code revision {facts["code_revision"]}.

Items newer than index {facts["n_items"]} are unknown to it; until the next training it ranks them by their content.
Weights are plain tensors; `manifest.sha256` holds their digests.
"""
    (model / "README.md").write_text(text)


def _held_out(facts: dict[str, Any]) -> tuple[str, str]:
    """The events that a training learned from, and the use of the held-out ones, in words for the model card."""
    validated = not facts.get("refit") and not facts.get("parent_version")  # a fine-tune is only tested
    if facts["protocol"] == "leave_one_out":
        if validated:
            return "all but the last two events of each", "the first of these validates and the second tests"
        return "all but the last event of each", "that one tests"
    uses = "validate and test" if validated else "test"
    return f"events before {facts['train_until']}", f"later events {uses}"


def _stages(facts: dict[str, Any], epochs: int) -> str:
    """The stages of a training in words. Two stages share one curve; the epochs of the second continue those of the first."""
    if before := facts.get("pretrain_epochs"):
        stages = f"Pre-trained on all events alike, best epoch {before}; then best epoch {facts['best_epoch']}, {epochs} in all"
    else:
        stages = f"Best epoch {facts['best_epoch']} of {epochs}"
    return f"Started from model {facts['start_from']}. {stages}" if facts.get("start_from") else stages


def signature(facts: dict[str, Any]) -> ModelSignature:
    """The model's signature: padded histories and the context of their events in, scores of the catalogue out."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    history = (-1, int(facts["max_length"]))
    inputs = [TensorSpec(np.dtype("int64"), history, name) for name in ("items", "context")]
    scores = TensorSpec(np.dtype("float32"), (-1, int(facts["n_items"]) + 1), "scores")
    return ModelSignature(Schema([*inputs]), Schema([scores]))


def _write_mlmodel(model: Path, run_id: str, facts: dict[str, Any]) -> None:
    """Write an MLmodel file with our own flavour and no loader, so that MLflow has nothing to import or unpickle."""
    from mlflow.models import Model

    flavour = {"weights": "weights.safetensors", "spec": "spec.json", "loader": "headwater.training.artifact.load"}
    Model("model", run_id, flavors={"headwater": flavour}, signature=signature(facts)).save(str(model / "MLmodel"))


def _experiment(registry: Registry, config: Config) -> str:
    name = config.mlflow.experiment
    if found := registry.client.get_experiment_by_name(name):
        if found.lifecycle_stage != "active":
            raise TrackingError(f"MLflow's experiment {name} is deleted; restore it, or set mlflow.experiment")
        return found.experiment_id
    store = local.sqlite_file(config.tracking_uri)
    artifacts = (store.parent / "_mlflow").as_uri() if store else None
    return registry.client.create_experiment(name, artifact_location=artifacts)


def _log_datasets(client: Any, run_id: str, config: Config, facts: dict[str, Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    datasets = []
    for table in ("sequences", "events"):
        version = facts[f"{table}_version"]
        source = json.dumps({"path": f"{config.paths.warehouse}/{table}", "delta_table_version": version})
        dataset = Dataset(table, f"v{version}", "delta_table", source)
        datasets.append(DatasetInput(dataset, [InputTag("mlflow.data.context", "training")]))
    client.log_inputs(run_id, datasets)


def _draw_curves(history: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    epochs = [entry["epoch"] for entry in history]
    axes.plot(epochs, [entry["loss"] for entry in history], color="#1f6f8b", label="training loss")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    if history and "epoch_ndcg_10" in history[0]:
        right = axes.twinx()
        right.plot(epochs, [entry["epoch_ndcg_10"] for entry in history], color="#d1495b", label="validation NDCG@10")
        right.set_ylabel("validation NDCG@10")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _params(settings: dict[str, Any]) -> dict[str, str]:
    """Settings by dotted name, as MLflow takes them: it refuses other characters in a name, which Spark allows, and longer
    names or values. ``config.json`` beside them has all as it is."""
    return {re.sub(r"[^\w.-]", "_", key)[:250]: str(value)[:6000] for key, value in _flat(settings).items()}


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
