"""Train a sequence model on one pinned version of `events`, on as many ranks as the config sets, and register it.

    python jobs/train_model.py
    python jobs/train_model.py --resume      # continue a killed training from its newest checkpoint, on the same events

With `train.start_from` the training starts from another site's model; with `train.pretrain_epochs` it first learns from all
events alike. After that, `train.targets` weights the events to predict.

Validation (`evaluate.protocol`) decides when to stop and how to blend. With `train.refit` the model is then trained again, for
as many epochs, with the validation events included. Test events are never trained on. The new version becomes the challenger,
and also the champion if there is none.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from headwater import job, models, popularity, sequences
from headwater.config import Config
from headwater.errors import HeadwaterError, UsageError
from headwater.evaluation import cases, protocol
from headwater.evaluation.protocol import Split
from headwater.job import Job
from headwater.models import ModelSpec, SequenceModel
from headwater.models.ranker import recency_scores
from headwater.tables import failpoint
from headwater.tracking import Registry, runs
from headwater.training import artifact, describe, facts, hybrid, readers, transfer, workplace
from headwater.training.learned import Task, learn
from headwater.training.validation import Cases
from headwater.work import discard

app = job.command_line()

PINNED = ("events_version", "n_items", "train_until", "validation_until")
"""The facts of a version that identify a training's data: a killed training resumes from files written for the same."""


@app.command(help=job.help_text(__doc__))
def main(
    resume: bool = typer.Option(False, "--resume", help="continue from the newest checkpoint of the same inputs"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("train_model", lambda j: fit(j, resume), config, set_)


def fit(j: Job, resume: bool) -> dict[str, Any]:
    tables, config = j.warehouse, j.config
    versions = {table: tables.version(table) for table in ("sequences", "events", "items")}
    if resume:
        versions = begun_with(j, versions)
    stored = tables.read("sequences", versions["sequences"])
    items = tables.read("items", versions["items"])
    n_items = sequences.last_index(items)
    if n_items == 0 or stored.limit(1).count() == 0:
        raise HeadwaterError(
            "there is no sequence to train on yet; run jobs/ingest_events.py and jobs/build_sequences.py"
        )
    if n_items < 2:
        raise HeadwaterError(
            "the catalogue has one item, and a model ranks at least two; ingest events of another item"
        )
    registry = Registry(config)
    runs.check(registry, config)  # report an MLflow that cannot be used now, not after the training
    events = tables.read("events", versions["events"])
    steps = sequences.filter_steps(events, items).persist()
    split = protocol.split(steps, config)
    spec = facts.spec_of(config, n_items)
    source = source_of(registry, config.train.start_from, spec)
    cuts, features = (split.train_until, split.validation_until), list(config.model.features)
    known = facts.collect(config, spec, versions, *cuts, runs.code_revision(), parent_version=0, features=features)
    known["start_from"] = config.train.start_from
    known["ingested_until"] = sequences.ingested_until(events).isoformat()
    inputs = {key: known[key] for key in PINNED}
    with workplace.locked_folder(config, inputs) as folder, workplace.not_continued_if_diverged(folder):
        if not resume:
            discard(folder)
        elif not folder.is_dir():
            j.log.info("there is no checkpoint for these tables and settings; the training starts from the beginning")
        training = workplace.begin(config, folder, versions)
        validation = validation_cases(split, config, n_items)
        described = describe.features(items, config.model.features, n_items, config.model.vectors)
        if described is not None and not described.nnz:
            raise HeadwaterError(
                f"model.features: no item of the catalogue has a {' or a '.join(config.model.features)}"
            )
        if not len(validation):
            j.log.warning(
                "no user has a target to validate on; all epochs run, and the parts of a hybrid get equal weights",
                targets=list(config.evaluate.targets),
            )
        task = Task(spec, config, inputs, described, source, resume)
        tried = learn(task, split.training, folder / "tried", validation.first(config.train.validation_users))
        best, kept = tried.best, tried
        known |= {"best_epoch": best.train, "pretrain_epochs": best.pretrain}
        parts = hybrid.fit_parts(config.blended, tried.items, n_items)
        if config.model.hybrid:
            known["blend"] = hybrid.best_blend(models.restore(tried.spec, tried.weights), parts, validation)
        if config.train.refit:
            kept = learn(task, split.until_test, folder / "refit", epochs=best)
            parts = hybrid.fit_parts(config.blended, kept.items, n_items)
            known |= {"refit": True, "train_until": known["validation_until"]}
        known["sequences"] = kept.sequences
        model = folder / "model"
        shutil.rmtree(model, ignore_errors=True)
        trained = readers.items_in(kept.items, n_items) if described is None else None
        artifact.save(model, kept.weights, kept.spec, known, parts, trained)
        artifact.smoke_test(model)
        steps.unpersist()
        failpoint("train_model:before_register")
        version = runs.log_training(registry, config, model, known, tried.history, j.name, training)
        failpoint("train_model:after_register")
        discard(folder)
    return {
        "model_version": version,
        "sequences": known["sequences"],
        "items": n_items,
        "epochs": len(tried.history),
        "pretrain_epochs": best.pretrain,
        "best_epoch": best.train,
        "loss": round(kept.loss, 5),
    }


def begun_with(j: Job, newest: dict[str, int]) -> dict[str, int]:
    """The table versions that a killed training with the same settings has read; the ``newest`` if there is none, or if a table
    was rebuilt since and has no such version."""
    begun = workplace.unfinished(j.config)
    if begun is None or any(begun[table] > version for table, version in newest.items()):
        return newest
    if begun != newest:
        j.log.info("continues a training on the events of its time", begun_with=begun, newest=newest)
    return begun


def validation_cases(split: Split, config: Config, n_items: int) -> Cases:
    """The cases for early stopping and the blend; a hybrid with recency also gets the popularity before those events."""
    n_cases = max(config.train.validation_users, hybrid.USERS if config.model.hybrid else 0)
    found = cases.collect(split.validation, n_cases).arrays(config.sequence.max_length)
    if "recency" in config.blended:
        counts = popularity.decayed_counts(split.training, n_items, config.topn.popular_half_life_days)
        return replace(found, prior=recency_scores(counts).numpy())
    return found


def source_of(registry: Registry, start_from: str, spec: ModelSpec) -> SequenceModel | None:
    """The model that a training of ``spec`` starts from, by folder or by version number; None if ``start_from`` is empty.

    Raises UsageError if there is no such folder, ModelError if there is no such version or the model does not fit, before the
    training starts.
    """
    if not start_from:
        return None
    folder = registry.download(int(start_from)) if start_from.isdecimal() else Path(start_from)
    if not folder.is_dir():
        raise UsageError(f"train.start_from: {start_from} is neither a folder nor a version number")
    model, _ = artifact.load(folder)
    transfer.check(model.spec, spec, start_from)
    return model


if __name__ == "__main__":
    job.start(app)
