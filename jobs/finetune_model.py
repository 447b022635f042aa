"""Fine-tune the champion on new feedback, with a replay sample against forgetting, and register it as challenger.

    python jobs/finetune_model.py

Users with feedback that no version has learned from yet are trained on again, their feedback weighed by its reward;
items that came since grow the item table. The newest part of the feedback is held out for the gate. With fewer than
`finetune.min_feedback` new rows, or where nothing that these users did weighs as a target (`train.targets`), the job does
nothing and closes with `"status": "skipped"`.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import Any

import typer
from pyspark.sql import functions as F

from headwater import feedback, job, sequences
from headwater.job import Job
from headwater.tables import failpoint
from headwater.tracking import Registry, runs
from headwater.tracking.registry import CHALLENGER, work_folder
from headwater.training import artifact, describe, facts, grow, readers, snapshot, train

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(config: job.ConfigFiles = None, set_: job.Overrides = None) -> None:
    job.run("finetune_model", tune, config, set_)


def tune(j: Job) -> dict[str, Any]:
    tables, config, settings = j.warehouse, j.config, j.config.finetune
    registry = Registry(config)
    champion = registry.need_champion()
    versions = {table: tables.version(table) for table in ("sequences", "events", "items", "feedback")}
    learned = learned_until(registry, champion)
    gathered = tables.read("feedback", versions["feedback"])
    new = gathered.where(F.col("collected_at") > F.lit(learned)) if learned else gathered
    new = new.persist()
    rows_new, newest = new.agg(F.count("*"), F.max(F.unix_micros("collected_at"))).first()  # type: ignore[misc]
    if rows_new < max(settings.min_feedback, 1):
        return {"status": "skipped", "feedback_new": rows_new, "min_feedback": settings.min_feedback}
    until = feedback.holdout_cut(new, settings.holdout_fraction)
    parent = registry.download(champion)
    model, known = artifact.load(parent)
    items = tables.read("items", versions["items"])
    n_items = sequences.last_index(items)
    described = describe.features(items, known.get("features", []), n_items, config.model.vectors)
    weights, spec = grow.grow(model.state_dict(), model.spec, n_items, config.train.seed, described)
    chosen = feedback.with_replay(
        tables.read("sequences", versions["sequences"]), new, settings.replay_fraction, config.train.seed
    )
    rows = snapshot.training_rows(chosen, spec.n_items, spec.max_length, before=until)
    inputs = {"versions": versions, "parent": champion, "train_until": str(until), "max_length": spec.max_length}
    folder = work_folder(config) / "training" / facts.fingerprint({**inputs, "processes": config.train.processes})
    data = snapshot.export(rows, folder / "snapshot", inputs, config.train.processes, config.train.seed)
    read = readers.weighed(readers.READERS[config.train.reader], train.target_weights(config.train.targets))
    if not readers.target_counts(data.files, read, spec.n_items).any():
        shutil.rmtree(folder, ignore_errors=True)
        return {"status": "skipped", "feedback_new": rows_new, "targets": 0}
    initial = folder / "initial.safetensors"
    artifact.write_weights(initial, weights)
    gently = config.train.model_copy(update={"epochs": settings.epochs, "learning_rate": settings.learning_rate})
    answer = train.run(train.plan(data, spec, gently, folder / "run", initial_weights=initial), gently)
    known = facts.gather(
        config,
        spec,
        versions,
        until,
        until,
        runs.code_revision(),
        parent_version=champion,
        feedback_rows=rows_new,
        feedback_until=datetime.fromtimestamp(newest / 1e6, UTC).isoformat(),
        sequences=data.manifest["sequences"],
        best_epoch=answer["best_epoch"],
        protocol="temporal",
        features=known.get("features", []),
        **({"blend": known["blend"]} if "blend" in known else {}),
    )
    tuned = folder / "model"
    artifact.save(
        tuned,
        artifact.read_weights(answer["weights"]),
        spec,
        known,
        {name: part.grown(n_items) for name, part in artifact.load_neighbours(parent).items()},
    )
    failpoint("finetune_model:before_register")
    version = runs.log_training(registry, config, tuned, known, answer["history"], j.name)
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "model_version": version,
        "parent_version": champion,
        "feedback_new": rows_new,
        "sequences": known["sequences"],
        "items_new": spec.n_items - model.spec.n_items,
        "loss": round(answer["history"][-1]["loss"], 5),
    }


def learned_until(registry: Registry, champion: int) -> datetime | None:
    """When the newest feedback was collected that the champion or the standing challenger has learned from.

    A challenger that the gate refused has had its try with that feedback: the next one waits for more.
    """
    challenger = registry.alias(CHALLENGER)
    marks = [registry.facts(version).get("feedback_until") for version in {champion, challenger or champion}]
    return max((datetime.fromisoformat(mark) for mark in marks if mark), default=None)


if __name__ == "__main__":
    job.start(app)
