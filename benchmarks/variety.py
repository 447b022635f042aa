"""Cost of variety: NDCG, diversity, coverage and novelty of the champion's lists, by rule and weight of re-ranking.

    python benchmarks/variety.py --config conf/site.yaml

Ranks items for the held-out users of the test split once per line, as `jobs/evaluate_model.py` does; writes nothing. The first
table ranks the whole catalogue by several shares of recency. The second measures lists as served, with the rules of `topn`, and the
distance of their categories from the user's own mix (`taste.miscalibration`, in nats), which `calibrated` lists follow.
"""

from __future__ import annotations

from typing import Any

import typer

from headwater import job, sequences
from headwater.config import Config
from headwater.evaluation.measure import Measured
from headwater.evaluation.protocol import Evaluation
from headwater.job import Job
from headwater.scoring import served
from headwater.tracking import Registry
from headwater.training import artifact

K = 10
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
HEADER = f"{'':<24}{'NDCG@10':>9}{'diversity':>11}{'coverage':>10}{'novelty':>9}"

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(config: job.ConfigFiles = None, set_: job.Overrides = None) -> None:
    job.run("variety", measure, config, set_)


def measure(j: Job) -> dict[str, Any]:
    registry = Registry(j.config)
    ranker = artifact.ranker(registry.download(registry.need_champion()))
    items = j.warehouse.read("items")
    steps = sequences.filter_steps(j.warehouse.read("events"), items).persist()
    evaluation = Evaluation(steps, items.count(), ranker.facts, "test", j.config)
    print(f"{len(evaluation.held)} users\n{HEADER}")
    for recency in (1.0, 0.75, 0.5, 0.25) if ranker.transitions is not None else (1.0,):
        chosen = dict(ranker.facts.get("blend", {}))
        if chosen:
            ranker.facts["blend"] = {**chosen, "recency": chosen["recency"] * recency}
        for rule, weight in weighted("mmr", "dpp"):
            evaluation.config = with_variety(j.config, rule, weight)
            show(f"recency {recency:g} {rule} {weight:g}", evaluation.model(ranker))
        if chosen:
            ranker.facts["blend"] = chosen
    print(f"as served\n{HEADER}{'miscalibration':>16}")
    for rule, weight in weighted("mmr", "dpp", "calibrated"):
        evaluation.config = with_variety(j.config, rule, weight)
        show(f"{rule} {weight:g}", served.measured(evaluation, items, ranker))
    return {"users": len(evaluation.held)}


def weighted(*rules: str) -> list[tuple[str, float]]:
    """Rules with their weights, after the lists without any."""
    return [("none", 0.0), *((rule, weight) for rule in rules for weight in WEIGHTS)]


def with_variety(config: Config, rule: str, weight: float) -> Config:
    topn = {"variety": "mmr" if rule == "none" else rule, "variety_weight": weight}
    return config.model_copy(update={"topn": config.topn.model_copy(update=topn)})


def show(name: str, found: Measured) -> None:
    print(
        f"{name:<24}{found.mean('ndcg', K):9.4f}{found.overall['diversity', K]:11.3f}"
        f"{found.overall['coverage', K]:10.3f}{found.overall['novelty', K]:9.2f}"
        + "".join(f"{value:16.3f}" for (name, _), value in found.overall.items() if name == served.MISCALIBRATION),
        flush=True,
    )


if __name__ == "__main__":
    job.start(app)
