"""Fine-tune the champion on new feedback, with a replay sample against forgetting, and register the result as challenger.

    python jobs/finetune_model.py

The job trains again on users with feedback that the champion does not know, given since the end of its training data or
ingested after its training, and weights each action by its reward. Items added since then extend the item table. The newest
part of the feedback is held out for the gate; the next fine-tune learns from it. The job does nothing and closes with
`"status": "skipped"` if fewer than `finetune.min_feedback` rows are new to every version, or if no event of these users has a
weight in `train.targets`. If the gate has yet to decide on the last fine-tune, the closing line names that version instead.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from typing import Any

from pyspark.sql import functions as F

from headwater import feedback, job, sequences
from headwater.config import Train
from headwater.job import Job
from headwater.tables import failpoint
from headwater.tracking import Registry, runs
from headwater.tracking.registry import FEEDBACK_UNTIL
from headwater.training import artifact, describe, facts, grow, hybrid, readers, snapshot, train, workplace
from headwater.training.snapshot import Snapshot

app = job.command_line()


@app.command(help=job.help_text(__doc__))
def main(config: job.ConfigFiles = None, set_: job.Overrides = None) -> None:
    job.run("finetune_model", tune, config, set_)


def tune(j: Job) -> dict[str, Any]:
    tables, config, settings = j.warehouse, j.config, j.config.finetune
    registry = Registry(config)
    champion = registry.need_champion()
    versions = {table: tables.version(table) for table in ("sequences", "events", "items", "feedback")}
    events = tables.read("events", versions["events"])
    learned = registry.facts(champion)
    train_until, ingested_until = (facts.parse_time(learned.get(name)) for name in ("train_until", "ingested_until"))
    given = tables.read("feedback", versions["feedback"])
    gathered = feedback.unknown_to_model(given, events, train_until, ingested_until).persist()
    new = feedback.collected_after(gathered, learned_until(registry, champion))
    rows_new, newest = feedback.count_and_newest(new)
    if rows_new < max(settings.min_feedback, 1):
        if waiting := not_yet_judged(j, registry, champion):
            registry.offer(waiting)
            j.log.info("an earlier fine-tune has not been judged yet", model_version=waiting)
            return {"model_version": waiting, "parent_version": champion, "feedback_new": rows_new}
        return {"status": "skipped", "feedback_new": rows_new, "min_feedback": settings.min_feedback}
    until = feedback.holdout_cut(gathered, settings.holdout_fraction)
    parent = registry.download(champion)
    model, parent_facts = artifact.load(parent)
    features = parent_facts.get("features", [])
    items = tables.read("items", versions["items"])
    n_items = sequences.last_index(items)
    described = describe.features(items, features, n_items, config.model.vectors)
    weights, spec = grow.grow(model.state_dict(), model.spec, n_items, config.train.seed, described)
    stored = tables.read("sequences", versions["sequences"])
    chosen = feedback.with_replay(stored, gathered, settings.replay_fraction, config.train.seed)
    rows = snapshot.training_rows(chosen, spec.n_items, spec.max_length, before=until)
    inputs = {"versions": versions, "parent": champion, "train_until": str(until), "max_length": spec.max_length}
    inputs |= {"seed": config.train.seed, "replay_fraction": settings.replay_fraction}
    with workplace.locked_folder(config, inputs) as folder, workplace.discarded_on_error(folder):
        data = snapshot.export(rows, folder / "snapshot", inputs, config.train.processes, config.train.seed)
        if not has_targets(data, spec.n_items, config.train):
            shutil.rmtree(folder, ignore_errors=True)
            return {"status": "skipped", "feedback_new": rows_new, "targets": 0}
        initial = folder / "initial.safetensors"
        artifact.write_weights(initial, weights)
        # an average over hundreds of steps would give back the champion
        less = {"epochs": settings.epochs, "learning_rate": settings.learning_rate, "average": 0.0}
        gently = config.train.model_copy(update=less)
        answer = train.run(train.plan(data, spec, gently, folder / "run", initial_weights=initial), gently)
        known = facts.collect(config, spec, versions, until, until, runs.code_revision(), protocol="temporal")
        known |= {"parent_version": champion, "feedback_rows": rows_new, "feedback_until": newest.isoformat()}
        known |= {"sequences": data.manifest["sequences"], "best_epoch": answer["best_epoch"], "features": features}
        known["ingested_until"] = sequences.ingested_until(events).isoformat()
        if "blend" in parent_facts:
            known["blend"] = parent_facts["blend"]
        parts = hybrid.grown(artifact.load_neighbours(parent), n_items)
        tuned = folder / "model"
        trained = None
        if described is None:
            trained = readers.items_in(readers.read_items(data.files, spec.n_items), spec.n_items)
            trained[: model.spec.n_items + 1] |= artifact.trained_items(parent)
        artifact.save(tuned, artifact.read_weights(answer["weights"]), spec, known, parts, trained)
        artifact.smoke_test(tuned)
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


def has_targets(data: Snapshot, n_items: int, settings: Train) -> bool:
    """Whether any event in a snapshot has a weight above 0 in ``train.targets``."""
    read = readers.checked_reader(settings.reader, train.target_weights(settings.targets), n_items)
    return bool(readers.target_counts(data.files, read, n_items).any())


def not_yet_judged(j: Job, registry: Registry, champion: int) -> int | None:
    """The newest fine-tune of the champion, if the gate has not decided on it; otherwise None.

    A run that dies after it has registered its version leaves it to the next run to report it and offer it to the gate.
    """
    newest = max(registry.tuned_from(champion), default=None)
    if newest is None or not j.warehouse.exists("promotions"):
        return newest
    decided = j.warehouse.read("promotions").where(F.col("challenger_version") == newest)
    return newest if decided.isEmpty() else None


def learned_until(registry: Registry, champion: int) -> datetime | None:
    """The collection time of the newest feedback that the champion or a fine-tune of it has learned from.

    This includes fine-tunes that the gate refused: the next one waits for more feedback.
    """
    marks = [registry.facts(champion).get(FEEDBACK_UNTIL)]
    marks += [tags.get(FEEDBACK_UNTIL) for tags in registry.tuned_from(champion).values()]
    return max(filter(None, map(facts.parse_time, marks)), default=None)


if __name__ == "__main__":
    job.start(app)
