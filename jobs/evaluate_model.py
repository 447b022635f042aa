"""Measure a model version on held-out events, beside popularity, recent popularity, item transitions and, of a hybrid,
its sequence model alone; and the lists that it would have served.

    python jobs/evaluate_model.py --alias champion
    python jobs/evaluate_model.py --version 3

The whole catalogue is ranked; served lists are by the rules of `topn`, for its groups too. Rows go to `model_metrics`
(newest `evaluated_at` counts) and to the version's MLflow run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from headwater import job, schemas, sequences
from headwater.errors import ModelError, UsageError
from headwater.evaluation.measure import BESIDE, Measured, rows
from headwater.evaluation.protocol import BASELINES, SPLITS, Evaluation
from headwater.in_hand import constant
from headwater.job import Job
from headwater.models.ranker import Ranker
from headwater.scoring.lately import Lately
from headwater.scoring.served import SERVED, to_users
from headwater.tracking import Registry

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(
    version: int = typer.Option(0, min=0, help="a version of the registered model"),
    alias: str = typer.Option("", help="champion (the default), challenger or previous_champion"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("evaluate_model", lambda j: evaluate(j, version, alias), config, set_)


def evaluate(j: Job, version: int, alias: str) -> dict[str, Any]:
    if version and alias:
        raise UsageError("give either --version N or --alias NAME")
    registry = Registry(j.config)
    chosen = version or registry.alias(alias or "champion")
    if chosen is None:
        raise ModelError(f"model {registry.name} has no {alias or 'champion'} yet; run jobs/train_model.py first")
    ranker = Ranker.open(registry.download(chosen))
    items = j.warehouse.read("items")
    steps = sequences.filter_steps(j.warehouse.read("events"), items).persist()
    n_items = items.count()
    found: list[tuple[Any, ...]] = []
    unknown = constant(j.spark, [], schemas.ddl("sequences"))
    closing: dict[str, Any] = {"model_version": chosen, "protocol": ranker.facts["protocol"]}
    logged: dict[str, float] = {}
    for split in SPLITS[-1:] if ranker.facts.get("refit") else SPLITS:  # what was trained on measures nothing
        evaluation = Evaluation(steps, n_items, ranker.facts, split, j.config)
        closing[f"users_{split}"] = len(evaluation.held)
        if not len(evaluation.held):
            continue
        for name, measured in compared(evaluation, ranker):
            own = name == ranker.name
            found += rows(measured, chosen if own else BESIDE, name, chosen, evaluation.protocol, split, j.now)
            if own:
                values = {key: measured.mean(*key) for key in measured.per_user} | measured.overall
                logged |= {f"{split}_{metric}_{k}": value for (metric, k), value in values.items()}
            k = 10 if 10 in j.config.evaluate.k else j.config.evaluate.k[0]
            if split == "test":
                for metric in ("ndcg", "hit_rate"):
                    closing[metric if own else f"{metric}_{name}"] = round(measured.mean(metric, k), 5)
        histories = sequences.build(evaluation.before, unknown, j.config.sequence.max_length, j.now)
        shown = to_users(evaluation.held.users, histories, items, Lately(*evaluation.lately), ranker, j.config.topn)
        measured = evaluation.lists(shown.lists, shown.group, ranker.unit.numpy())
        found += rows(measured, BESIDE, SERVED, chosen, evaluation.protocol, split, j.now)
    frame = constant(j.spark, found, schemas.ddl("model_metrics"))
    j.warehouse.append(frame, "model_metrics", {"job": j.name, "model_version": chosen})
    registry.log_metrics(chosen, logged)
    return {**closing, "rows": len(found)}


def compared(evaluation: Evaluation, ranker: Ranker) -> Iterator[tuple[str, Measured]]:
    """The version, and what it is measured beside, on the same users."""
    yield ranker.name, evaluation.model(ranker)
    if ranker.blend:
        yield "sequence_model", evaluation.model(ranker.alone())
    for name in BASELINES:
        yield name, evaluation.baseline(name)


if __name__ == "__main__":
    job.start(app)
