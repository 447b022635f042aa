"""The gate: make the challenger the champion if it is good enough, and say why or why not.

    python jobs/promote_model.py
    python jobs/promote_model.py --version 7     # this version, even if there is a newer challenger
    python jobs/promote_model.py --rollback

Challenger, champion and the baselines of `gate.must_beat` are measured on the same users, on events that neither model was
trained on.
Every decision is a row of `promotions`.
"""

from __future__ import annotations

import json
from typing import Any

import typer

from headwater import job, schemas, sequences
from headwater.errors import ModelError, UsageError
from headwater.evaluation import gate
from headwater.evaluation.protocol import Evaluation, unseen_cut
from headwater.frames import frame_of
from headwater.job import Job
from headwater.tables import failpoint
from headwater.tracking import Registry
from headwater.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS
from headwater.training import artifact

app = job.command_line()

ROLLED_BACK = "rolled_back"
"""The tag of a version that was champion once and must not be again."""


@app.command(help=job.help_text(__doc__))
def main(
    version: int | None = typer.Option(None, min=1, help="the version to judge; default: the challenger"),
    rollback: bool = typer.Option(False, "--rollback", help="restore the previous champion"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("promote_model", lambda j: roll_back(j, version) if rollback else promote(j, version), config, set_)


def promote(j: Job, version: int | None = None) -> dict[str, Any]:
    registry = Registry(j.config)
    challenger, champion = version or registry.need(CHALLENGER), registry.alias(CHAMPION)
    if challenger == champion:
        return {"promoted": False, "reason": f"version {champion} is the champion already", "model_version": champion}
    if ROLLED_BACK in registry.version(challenger).tags:
        reason = f"refused: version {challenger} was rolled back; train or fine-tune a new challenger"
        record(j, "promote", challenger, champion, False, reason, {})
        j.log.info(reason, challenger=challenger, champion=champion)
        return {"promoted": False, "reason": reason, "model_version": champion}
    rankers = {version: artifact.ranker(registry.download(version)) for version in (challenger, champion) if version}
    items = j.warehouse.pinned("items")  # ingest may be running at the same time
    steps = sequences.filter_steps(j.warehouse.pinned("events"), items).persist()
    facts = unseen_cut([ranker.facts for ranker in rankers.values()])
    gate_length = j.config.evaluate.model_copy(update={"k": [j.config.gate.k]})
    evaluation = Evaluation(steps, items.count(), facts, "test", j.config.model_copy(update={"evaluate": gate_length}))
    key = (j.config.gate.metric, j.config.gate.k)
    values = {version: evaluation.model(ranker).per_user[key] for version, ranker in rankers.items()}
    baselines = {name: evaluation.baseline(name).per_user[key] for name in j.config.gate.must_beat}
    champion_values = values[champion] if champion else None
    decision = gate.decide(values[challenger], champion_values, baselines, j.config.gate, j.config.train.seed)
    with j.warehouse.locked("promotions"):
        need_unchanged(registry, champion, challenger)
        record(j, "promote", challenger, champion, decision.promote, decision.reason, decision.details)
        failpoint("promote_model:before_alias")
        if decision.promote:
            if champion is not None:
                registry.set_alias(PREVIOUS, champion)
            registry.set_alias(CHAMPION, challenger)
    j.log.info(decision.reason, challenger=challenger, champion=champion)
    champion_now = challenger if decision.promote else champion
    return {"promoted": decision.promote, "reason": decision.reason, "model_version": champion_now, **decision.details}


def need_unchanged(registry: Registry, champion: int | None, challenger: int) -> None:
    """Raises ModelError if another run moved the alias champion, or rolled the challenger back, while this one measured."""
    now = registry.alias(CHAMPION)
    if now != champion:
        raise ModelError(
            f"the champion changed from version {champion} to {now} during the comparison; run the job again"
        )
    if ROLLED_BACK in registry.version(challenger).tags:
        raise ModelError(f"version {challenger} was rolled back during the comparison")


def roll_back(j: Job, version: int | None = None) -> dict[str, Any]:
    if version is not None:
        raise UsageError("--rollback restores the previous champion and cannot be combined with --version")
    registry = Registry(j.config)
    with j.warehouse.locked("promotions"):
        previous, champion = registry.alias(PREVIOUS), registry.alias(CHAMPION)
        last = j.warehouse.last_note("promotions", j.name) or {}
        if previous == champion and (last.get("action"), last.get("challenger")) == ("rollback", champion):
            # the same run again, killed after its last step or not
            return {"promoted": True, "reason": last["reason"], "model_version": champion}
        if previous is None or previous == champion:
            raise ModelError(f"model {registry.name} has no previous champion to restore")
        reason = f"rolled back from version {champion} to {previous}"
        record(j, "rollback", previous, champion, True, reason, {})
        if champion is not None:  # it may still be the challenger, and the same evidence would promote it again
            registry.set_tag(champion, ROLLED_BACK, j.now.isoformat())
        registry.set_alias(CHAMPION, previous)
        return {"promoted": True, "reason": reason, "model_version": previous}


def record(
    j: Job, action: str, challenger: int, champion: int | None, promoted: bool, reason: str, details: dict[str, Any]
) -> None:
    """Store the decision before the alias moves, so that an alias never moves without a row that says why.

    A run that is killed in between and repeated reaches the same decision, which is not stored twice.
    """
    note = {"job": j.name, "action": action, "challenger": challenger, "champion": champion, "reason": reason}
    if j.warehouse.last_note("promotions", j.name) == note:
        return
    row = (j.now, action, challenger, champion, "promoted" if promoted else "refused", reason, json.dumps(details))
    frame = frame_of(j.spark, [row], schemas.ddl("promotions"))
    j.warehouse.append(frame, "promotions", note)


if __name__ == "__main__":
    job.start(app)
