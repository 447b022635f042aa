"""Train a sequence model on one pinned version of `events`, on all ranks that the config asks for, and register it.

    python jobs/train_model.py
    python jobs/train_model.py --resume      # go on from the newest checkpoint of the same inputs

With `train.start_from` it starts from another site's model, with `train.pretrain_epochs` from what all events teach; then
`train.targets` say what counts.

Validation (`evaluate.protocol`) tells when to stop and how to blend; then, with `train.refit`, the model is trained once
more, for as many epochs, on what validated too. The test's events are never trained on. The new version becomes the
challenger, and the champion where there is none.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from pyspark.sql import functions as F

from headwater import job, popularity, sequences
from headwater.errors import HeadwaterError
from headwater.evaluation import cases
from headwater.job import Job
from headwater.models import ModelSpec, SequenceModel
from headwater.models.ranker import recency_scores
from headwater.tables import failpoint
from headwater.tracking import Registry, runs
from headwater.tracking.registry import work_folder
from headwater.training import artifact, describe, facts, hybrid, transfer
from headwater.training.learned import Task, learn

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(
    resume: bool = typer.Option(False, "--resume", help="go on from the newest checkpoint of the same inputs"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("train_model", lambda j: fit(j, resume), config, set_)


def fit(j: Job, resume: bool) -> dict[str, Any]:
    tables, config = j.warehouse, j.config
    versions = {table: tables.version(table) for table in ("sequences", "events", "items")}
    stored = tables.read("sequences", versions["sequences"])
    items = tables.read("items", versions["items"])
    n_items = sequences.last_index(items)
    if n_items == 0 or stored.limit(1).count() == 0:
        raise HeadwaterError(
            "there is no sequence to train on yet; run jobs/ingest_events.py and jobs/build_sequences.py"
        )
    registry = Registry(config)
    registry.alias("champion")  # an MLflow that does not answer is told now, not after the training
    steps = sequences.filter_steps(tables.read("events", versions["events"]), items).persist()
    length, exclude, targets = config.sequence.max_length, config.topn.exclude_seen, config.evaluate.targets
    train_until = validation_until = None
    if config.evaluate.protocol == "temporal":
        train_until, validation_until = cases.cuts(
            steps, config.evaluate.test_fraction, config.evaluate.validation_fraction
        )
        held = cases.temporal(steps, train_until, validation_until, length, exclude, targets)
        learned, until_test = (steps.where(F.col("event_time") < F.lit(cut)) for cut in (train_until, validation_until))
    else:
        held = cases.leave_one_out(steps, 2, length, exclude, targets)
        learned, until_test = (cases.without_last(steps, count) for count in (2, 1))
    spec = facts.spec_of(config, n_items)
    source = source_of(registry, config.train.start_from, spec)
    known = facts.gather(config, spec, versions, train_until, validation_until, runs.code_revision())
    inputs = {key: known[key] for key in ("events_version", "n_items", "max_length", "protocol", "train_until")}
    inputs["windows"] = config.train.windows
    folder = work_folder(config) / "training" / facts.fingerprint({**inputs, "processes": config.train.processes})
    asked = max(config.train.validation_users, hybrid.USERS if config.model.hybrid else 0)
    validation = cases.collect(held, asked).arrays(length)
    if config.model.hybrid and "recency" in config.model.blend:
        popular = recency_scores(popularity.decayed_counts(learned, n_items, config.topn.popular_half_life_days))
        validation = replace(validation, prior=popular.numpy())
    described = describe.features(items, config.model.features, n_items, config.model.vectors)
    task = Task(spec, config, inputs, described, source, resume)
    tried = learn(task, learned, folder / "tried", validation.first(config.train.validation_users))
    best = tried.best
    known |= {"best_epoch": best.trained, "pretrain_epochs": best.pretrained}
    known |= {"parent_version": 0, "start_from": config.train.start_from, "features": list(config.model.features)}
    model, kept = folder / "model", tried
    shutil.rmtree(model, ignore_errors=True)
    blended = config.model.blend if config.model.hybrid else ()
    parts = hybrid.fit_parts(blended, tried.items, n_items)
    if config.model.hybrid:
        artifact.save(model, tried.weights, tried.spec, known)
        known["blend"] = hybrid.best_blend(artifact.load(model)[0], parts, validation)
    if config.train.refit:
        kept = learn(task, until_test, folder / "refit", epochs=best)
        parts = hybrid.fit_parts(blended, kept.items, n_items)
        known |= {"refit": True, "train_until": known["validation_until"]}
    known["sequences"] = kept.sequences
    artifact.save(model, kept.weights, kept.spec, known, parts)
    steps.unpersist()
    failpoint("train_model:before_register")
    version = runs.log_training(registry, config, model, known, tried.history, j.name)
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "model_version": version,
        "sequences": known["sequences"],
        "items": n_items,
        "epochs": len(tried.history),
        "pretrain_epochs": best.pretrained,
        "best_epoch": best.trained,
        "loss": round(tried.history[-1]["loss"], 5),
    }


def source_of(registry: Registry, start_from: str, spec: ModelSpec) -> SequenceModel | None:
    """The model that a training of ``spec`` starts from: a folder, or a version by its number; none without a name.

    Raises ModelError, before anything is learned, for one that cannot be.
    """
    if not start_from:
        return None
    folder = registry.download(int(start_from)) if start_from.isdecimal() else Path(start_from)
    model, _ = artifact.load(folder)
    transfer.check(model.spec, spec, start_from)
    return model


if __name__ == "__main__":
    job.start(app)
