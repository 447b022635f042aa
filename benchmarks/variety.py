"""Cost of variety: NDCG, diversity, coverage and novelty of the champion's lists, by rule and weight of re-ranking.

    python benchmarks/variety.py --config conf/site.yaml

Ranks items for the held-out users of the test split once per line, as `jobs/evaluate_model.py` does; writes nothing.
"""

from __future__ import annotations

from typing import Any

import typer

from headwater import job, sequences
from headwater.evaluation.measure import Measured
from headwater.evaluation.protocol import Evaluation
from headwater.job import Job
from headwater.tracking import Registry
from headwater.training import artifact

K = 10
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)

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
    print(f"{len(evaluation.held)} users\n{'':<24}{'NDCG@10':>9}{'diversity':>11}{'coverage':>10}{'novelty':>9}")
    for recency in (1.0, 0.75, 0.5, 0.25) if ranker.transitions is not None else (1.0,):
        chosen = dict(ranker.facts.get("blend", {}))
        if chosen:
            ranker.facts["blend"] = {**chosen, "recency": chosen["recency"] * recency}
        for rule, weight in [("none", 0.0), *((rule, weight) for rule in ("mmr", "dpp") for weight in WEIGHTS)]:
            topn = {"variety": "mmr" if rule == "none" else rule, "variety_weight": weight}
            evaluation.config = j.config.model_copy(update={"topn": j.config.topn.model_copy(update=topn)})
            show(f"recency {recency:g} {rule} {weight:g}", evaluation.model(ranker))
        if chosen:
            ranker.facts["blend"] = chosen
    return {"users": len(evaluation.held)}


def show(name: str, found: Measured) -> None:
    print(
        f"{name:<24}{found.mean('ndcg', K):9.4f}{found.overall['diversity', K]:11.3f}"
        f"{found.overall['coverage', K]:10.3f}{found.overall['novelty', K]:9.2f}",
        flush=True,
    )


if __name__ == "__main__":
    job.start(app)
