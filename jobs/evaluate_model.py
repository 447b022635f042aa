"""Measure a model version, and the lists that it would have served, on held-out events. The baselines are popularity, recent
popularity, item transitions and, for a hybrid, its sequence model alone.

    python jobs/evaluate_model.py --alias champion
    python jobs/evaluate_model.py --version 3

The whole catalogue is ranked; served lists follow the rules of `topn`, including those of its groups. Results go to
`model_metrics` (the newest `evaluated_at` counts) and to the version's MLflow run.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import typer

from headwater import job, schemas, sequences
from headwater.errors import UsageError
from headwater.evaluation.measure import BASELINE_VERSION, Measured, rows
from headwater.evaluation.protocol import SEQUENCE_MODEL, SPLITS, Evaluation
from headwater.frames import frame_of
from headwater.job import Job
from headwater.models.ranker import Ranker
from headwater.scoring import faithfulness, served
from headwater.scoring.served import MISCALIBRATION, SERVED
from headwater.tracking import Registry
from headwater.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS
from headwater.training import artifact

OF_SERVED_LISTS = (*faithfulness.METRICS, MISCALIBRATION)
"""The metrics of served lists that the closing line and the MLflow run show."""

app = job.command_line()


class Alias(StrEnum):
    champion = CHAMPION
    challenger = CHALLENGER
    previous_champion = PREVIOUS


@app.command(help=job.help_text(__doc__))
def main(
    version: int | None = typer.Option(None, min=1, help="a version of the registered model"),
    alias: Alias | None = typer.Option(None, help="evaluate the version behind this alias; default: the champion"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("evaluate_model", lambda j: evaluate(j, version, alias), config, set_)


def evaluate(j: Job, version: int | None, alias: Alias | None) -> dict[str, Any]:
    if version and alias:
        raise UsageError("give either --version N or --alias NAME")
    registry = Registry(j.config)
    chosen = version or registry.need(alias or CHAMPION)
    ranker = artifact.ranker(registry.download(chosen))
    items = j.warehouse.pinned("items")  # ingest may be running at the same time
    steps = sequences.filter_steps(j.warehouse.pinned("events"), items).persist()
    n_items = items.count()
    k = 10 if 10 in j.config.evaluate.k else j.config.evaluate.k[0]
    metric_rows: list[tuple[Any, ...]] = []
    closing: dict[str, Any] = {"model_version": chosen, "protocol": ranker.facts["protocol"]}
    logged: dict[str, float] = {}
    for split in SPLITS[-1:] if ranker.facts.get("refit") else SPLITS:  # a refit trains on validation events
        evaluation = Evaluation(steps, n_items, ranker.facts, split, j.config)
        closing[f"users_{split}"] = len(evaluation.held)
        if not len(evaluation.held):
            continue
        measured = dict(compared(evaluation, ranker))
        if split == "test":
            for name, each in measured.items():
                suffix = "" if name == ranker.name else f"_{name}"
                closing |= {f"{metric}{suffix}": round(each.mean(metric, k), 5) for metric in ("ndcg", "hit_rate")}
        measured[SERVED] = served.measured(evaluation, items, ranker)
        for name, each in measured.items():
            version_of = chosen if name == ranker.name else BASELINE_VERSION
            metric_rows += rows(each, version_of, name, chosen, evaluation.protocol, split, j.now)
        logged |= {f"{split}_{name}": value for name, value in measured[ranker.name].by_name().items()}
        of_lists = {name: value for (name, _), value in measured[SERVED].overall.items() if name in OF_SERVED_LISTS}
        logged |= {f"{split}_{name}": value for name, value in of_lists.items()}
        if split == "test":
            closing |= {name: round(value, 4) for name, value in of_lists.items()}
    frame = frame_of(j.spark, metric_rows, schemas.ddl("model_metrics"))
    j.warehouse.append(frame, "model_metrics", {"job": j.name, "model_version": chosen})
    registry.log_metrics(chosen, logged)
    return {**closing, "rows": len(metric_rows)}


def compared(evaluation: Evaluation, ranker: Ranker) -> Iterator[tuple[str, Measured]]:
    """The version and its baselines, measured on the same users."""
    yield ranker.name, evaluation.model(ranker)
    if ranker.blend:
        yield SEQUENCE_MODEL, evaluation.model(ranker.without_blend())
    for name in evaluation.baseline_names:
        yield name, evaluation.baseline(name)


if __name__ == "__main__":
    job.start(app)
