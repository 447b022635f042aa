"""Fine-tune the champion on new feedback, with a replay sample against forgetting, and register the result as challenger.

    python jobs/finetune_model.py

The job trains again on users with feedback that the champion does not know, given since the end of its training data or
ingested after its training; as a target, an action with reward r weighs 1 + r times its weight in `train.targets`. Items added
since then extend the item table. The other parts of a hybrid are counted anew from all events. The newest part of the feedback
is held out for the gate; the next fine-tune learns from it.
The job does nothing and closes with `"status": "skipped"` if fewer than `finetune.min_feedback` rows are new to every version,
or if no event before the held-out part is a target. If the gate has yet to decide on the last fine-tune, the closing line names
that version instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse
from torch import Tensor

from headwater import feedback, job, sequences
from headwater.config import Config, Train
from headwater.evaluation import cases
from headwater.job import Job
from headwater.models.neighbours import Neighbours
from headwater.models.spec import ModelSpec
from headwater.tables import failpoint
from headwater.tables import readers as table_readers
from headwater.tracking import Registry, runs
from headwater.tracking.registry import FEEDBACK_UNTIL
from headwater.training import artifact, describe, facts, grow, hybrid, readers, snapshot, train, workplace
from headwater.training.snapshot import Snapshot
from headwater.work import discard

app = job.command_line()

FOLLOWED = (table_readers.FEEDBACK, table_readers.SEQUENCES)
"""What brings events to a fine-tune; it knows an event when both have read it."""
TUNED_UNTIL = "tuned_until"
"""The fact of a fine-tuned version that tells from when on it has learned from no feedback."""


@app.command(help=job.help_text(__doc__))
def main(config: job.ConfigFiles = None, set_: job.Overrides = None) -> None:
    job.run("finetune_model", tune, config, set_)


def tune(j: Job) -> dict[str, Any]:
    config, registry = j.config, Registry(j.config)
    champion = registry.need_champion()
    given = find_feedback(j, registry, champion)
    if given.rows_new < max(config.finetune.min_feedback, 1):
        return too_little(j, registry, champion, given.rows_new)
    parent = registry.download(champion)
    start = grow_champion(j, parent, given.versions["items"])
    n_items, until = start.spec.n_items, feedback.holdout_cut(given.unknown, config.finetune.holdout_fraction)
    inputs = {"parent": champion, "versions": given.versions, "until": str(until), "max_length": start.spec.max_length}
    inputs["finetune"] = config.finetune.model_dump()
    with workplace.locked_folder(config, inputs) as folder, workplace.discarded_on_error(folder):
        data = export(j, given, start.spec, until, folder / "snapshot", inputs)
        if data is None:
            discard(folder)
            return {"status": "skipped", "feedback_new": given.rows_new, "targets": 0}
        answer = train_gently(config, data, start, folder)
        known = facts_of(config, given, start, until) | {"parent_version": champion}
        known |= {"sequences": data.manifest["sequences"], "best_epoch": answer["best_epoch"]}
        trained = None
        if start.described is None:
            trained = readers.items_in(readers.read_items(data.files, n_items), n_items)
            trained[: start.n_before + 1] |= artifact.trained_items(parent)
        parts = count_parts(j, given, artifact.load_neighbours(parent), start.spec, until, folder / "histories", inputs)
        tuned = folder / "model"
        artifact.save(tuned, artifact.read_weights(answer["weights"]), start.spec, known, parts, trained)
        artifact.smoke_test(tuned)
        failpoint("finetune_model:before_register")
        version = runs.log_training(registry, config, tuned, known, answer["history"], j.name)
        discard(folder)
    return {
        "model_version": version,
        "parent_version": champion,
        "feedback_new": given.rows_new,
        "sequences": known["sequences"],
        "items_new": n_items - start.n_before,
        "loss": round(answer["history"][-1]["loss"], 5),
    }


class Given(NamedTuple):
    """The feedback for a fine-tune. ``versions``: of the tables that it reads; ``unknown``: all rows that the champion does not
    know; ``rows_new``: how many of them no version has counted before, the newest collected at ``newest``; ``ingested_until``:
    feedback on events ingested later is still to be collected."""

    versions: dict[str, int]
    unknown: DataFrame
    rows_new: int
    newest: datetime
    ingested_until: datetime | None


def find_feedback(j: Job, registry: Registry, champion: int) -> Given:
    tables, learned = j.warehouse, registry.facts(champion)
    until = facts.parse_time(learned.get(TUNED_UNTIL) or learned.get("train_until"))
    ingested_until = facts.parse_time(learned.get("ingested_until"))
    read_until = [table_readers.progress(tables, reader).after for reader in FOLLOWED]
    versions = {table: tables.version(table) for table in ("sequences", "events", "items", "feedback")}
    given, events = tables.read("feedback", versions["feedback"]), tables.read("events", versions["events"])
    unknown = feedback.unknown_to_model(given, events, until, ingested_until).persist()
    rows_new, newest = feedback.count_and_newest(feedback.collected_after(unknown, learned_until(registry, champion)))
    if (followed := min(-1 if after is None else after for after in read_until)) >= 0:
        ingested_until = sequences.ingested_until(tables.read("events", followed))
    return Given(versions, unknown, rows_new, newest, ingested_until)


def too_little(j: Job, registry: Registry, champion: int, rows_new: int) -> dict[str, Any]:
    """The closing line where too little feedback is new. A fine-tune that waits for the gate's decision is offered again, in case
    the run that registered it was killed before that."""
    if waiting := not_yet_judged(j, registry, champion):
        registry.offer(waiting)
        j.log.info("an earlier fine-tune has not been judged yet", model_version=waiting)
        return {"model_version": waiting, "parent_version": champion, "feedback_new": rows_new}
    return {"status": "skipped", "feedback_new": rows_new, "min_feedback": j.config.finetune.min_feedback}


class Start(NamedTuple):
    """The champion, grown to today's catalogue: ``weights`` and ``spec``; ``n_before``: the items that it had before;
    ``described``: item features from the catalogue, None for a model without; ``facts``: those of the champion."""

    weights: dict[str, Tensor]
    spec: ModelSpec
    n_before: int
    described: sparse.csr_matrix | None
    facts: dict[str, Any]


def grow_champion(j: Job, parent: Path, items_version: int) -> Start:
    model, known = artifact.load(parent)
    items = j.warehouse.read("items", items_version)
    n_items = sequences.last_index(items)
    described = describe.features(items, known.get("features", []), n_items, j.config.model.vectors)
    weights, spec = grow.grow(model.state_dict(), model.spec, n_items, j.config.train.seed, described)
    return Start(weights, spec, model.spec.n_items, described, known)


def export(
    j: Job, given: Given, spec: ModelSpec, until: datetime, folder: Path, inputs: dict[str, Any]
) -> Snapshot | None:
    """The training data: events before ``until`` of users with feedback, and of some others; None if no event can be a target."""
    options = j.config.train
    stored = j.warehouse.read("sequences", given.versions["sequences"])
    chosen = feedback.with_replay(stored, given.unknown, j.config.finetune.replay_fraction, options.seed)
    rows = snapshot.training_rows(chosen, spec.n_items, spec.max_length, before=until)
    if rows.isEmpty():
        return None
    data = snapshot.export(rows, folder, inputs, options.processes, options.seed)
    return data if has_targets(data, spec.n_items, options) else None


def train_gently(config: Config, data: Snapshot, start: Start, folder: Path) -> dict[str, Any]:
    """Rank 0's answer of a short training that begins with the champion's weights."""
    initial = folder / "initial.safetensors"
    artifact.write_weights(initial, start.weights)
    settings = config.finetune
    # an average over hundreds of steps would give back the champion
    less = {"epochs": settings.epochs, "learning_rate": settings.learning_rate, "average": 0.0}
    gently = config.train.model_copy(update=less)
    return train.run(train.plan(data, start.spec, gently, folder / "run", initial_weights=initial), gently)


def count_parts(
    j: Job, given: Given, names: Iterable[str], spec: ModelSpec, until: datetime, folder: Path, inputs: dict[str, Any]
) -> dict[str, Neighbours]:
    """The other parts of a hybrid, counted anew from all events before ``until``; the blend keeps its weights."""
    if not (names := list(names)):
        return {}
    events, items = (j.warehouse.read(table, given.versions[table]) for table in ("events", "items"))
    steps = cases.before(sequences.filter_steps(events, items), until)
    data = snapshot.export_histories(steps, spec, j.config.train, folder, inputs)
    return hybrid.fit_parts(names, readers.read_items(data.files, spec.n_items), spec.n_items)


def facts_of(config: Config, given: Given, start: Start, until: datetime) -> dict[str, Any]:
    """The facts of the fine-tuned version. Its cut is the champion's if that is later: the champion has learned from events up to
    it."""
    cut = max(filter(None, (until, facts.parse_time(start.facts.get("validation_until")))))
    known = facts.collect(config, start.spec, given.versions, cut, cut, runs.code_revision(), protocol="temporal")
    known |= {TUNED_UNTIL: until.isoformat(), "feedback_rows": given.rows_new, FEEDBACK_UNTIL: given.newest.isoformat()}
    known["ingested_until"] = given.ingested_until.isoformat() if given.ingested_until else ""
    return known | {name: start.facts[name] for name in ("features", "blend") if name in start.facts}


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
