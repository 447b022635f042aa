"""The facts that a version records of its training, and the fingerprint by which a killed training finds its work again."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from headwater.config import Config
from headwater.models.spec import ModelSpec


def spec_of(config: Config, n_items: int) -> ModelSpec:
    """The model spec for a config and a catalogue of ``n_items``.

    Random initial item vectors enter the encoder multiplied by √dim (Vaswani et al., 2017): a step of Adam changes all weights
    by similar amounts, so unscaled vectors would change the encoder's input too slowly. Vectors that start as factors are in
    place from the start.
    """
    model = config.model
    default_scale = model.dim**0.5 if model.initial == "random" else 1.0
    return ModelSpec(
        kind=model.kind,
        n_items=n_items,
        max_length=config.encoder_length,
        dim=model.dim,
        layers=model.layers,
        heads=model.heads,
        feed_forward=model.feed_forward,
        dropout=model.dropout,
        input_scale=default_scale if model.input_scale is None else model.input_scale,
        input_dropout=model.input_dropout,
        mask_probability=model.mask_probability,
        context=model.context,
    )


def collect(
    config: Config,
    spec: ModelSpec,
    versions: dict[str, int],
    train_until: datetime | None,
    validation_until: datetime | None,
    code_revision: str,
    **more: Any,
) -> dict[str, Any]:
    """Plain JSON: table versions, cuts (ISO 8601, UTC; empty with leave_one_out), seed, item range, code revision."""
    return {
        **{f"{table}_version": version for table, version in versions.items()},
        "kind": spec.kind,
        "n_items": spec.n_items,
        "max_length": config.sequence.max_length,
        "protocol": config.evaluate.protocol,
        "train_until": train_until.isoformat() if train_until else "",
        "validation_until": validation_until.isoformat() if validation_until else "",
        "targets": config.train.targets.model_dump(),
        "seed": config.train.seed,
        "code_revision": code_revision,
        **more,
    }


def parse_time(text: str | None) -> datetime | None:
    """A cut or another time as recorded in a version's facts; None if there is none."""
    return datetime.fromisoformat(text) if text else None


def fingerprint(facts: dict[str, Any]) -> str:
    """A short identifier of everything that a snapshot depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
