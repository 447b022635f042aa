"""All metrics of a model on held-out users, as arrays for the gate and as rows for ``model_metrics``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from torch import Tensor

from headwater.evaluation import metrics
from headwater.evaluation.cases import HeldOut
from headwater.evaluation.ranking import AS_RANKED, Scores, rank
from headwater.models.variety import Variety

BESIDE = 0
"""``model_version`` of the baselines' rows."""


@dataclass(frozen=True)
class Measured:
    """``per_user``: (metric, k) → float64 ``[users]``; ``overall``: (metric, k) → one number for all users' lists."""

    held: HeldOut
    per_user: dict[tuple[str, int], np.ndarray]
    overall: dict[tuple[str, int], float]

    def mean(self, metric: str, k: int) -> float:
        return float(self.per_user[metric, k].mean()) if len(self.held) else 0.0


def measure(
    scores: Scores,
    held: HeldOut,
    ks: list[int],
    counts: np.ndarray,
    unit: Tensor | None = None,
    variety: Variety = AS_RANKED,
) -> Measured:
    """Rank and measure. ``counts`` ``[items + 1]`` are events before the cut; ``unit`` ``[items + 1, dim]``, item vectors
    of length 1, give diversity, and ``variety`` picks by them."""
    ranking = rank(scores, held, max(ks), variety, unit)
    per_user = {(name, k): metric(ranking.ranks, k) for name, metric in metrics.PER_USER.items() for k in ks}
    overall = {}
    for k in ks:
        lists = ranking.lists[:, :k]
        overall["coverage", k] = metrics.coverage(lists, len(counts) - 1)
        overall["novelty", k] = metrics.novelty(lists, counts)
        if unit is not None:
            overall["diversity", k] = metrics.diversity(np.where(lists < len(unit), lists, 0), unit.numpy())
    return Measured(held, per_user, overall)


def rows(
    measured: Measured, version: int, model: str, beside: int, protocol: str, split: str, now: datetime
) -> list[tuple[Any, ...]]:
    """Rows in the column order of ``model_metrics``."""
    found: list[tuple[Any, ...]] = []
    for segment, mask in measured.held.segments():
        users = int(mask.sum())
        for (metric, k), values in measured.per_user.items():
            found.append(
                (version, model, protocol, split, segment, metric, k, float(values[mask].mean()), users, beside, now)
            )
    users = len(measured.held)
    for (metric, k), value in measured.overall.items():
        found.append((version, model, protocol, split, "all", metric, k, value, users, beside, now))
    return found
