"""All metrics of a model on held-out users, as arrays for the gate and as rows for ``model_metrics``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from torch import Tensor

from headwater.evaluation import metrics
from headwater.evaluation.cases import HeldOut
from headwater.evaluation.ranking import AS_RANKED, SCORES, USERS, Scores, places_in, rank
from headwater.models.variety import Variety

BASELINE_VERSION = 0
"""The ``model_version`` in rows of baselines."""


@dataclass(frozen=True)
class Measured:
    """``per_user``: (metric, k) → float64 ``[users]``; ``segments``: name → bool mask ``[users]``, the first one ``all``;
    ``of_lists``: segment → (metric, k) → one number for the lists of all its users."""

    per_user: dict[tuple[str, int], np.ndarray]
    segments: dict[str, np.ndarray]
    of_lists: dict[str, dict[tuple[str, int], float]]

    @property
    def overall(self) -> dict[tuple[str, int], float]:
        """The list metrics of all users."""
        return self.of_lists["all"]

    def of(self, segment: str) -> dict[tuple[str, int], float]:
        """All metrics of a segment: the means over its users, and the list metrics."""
        mask = self.segments[segment]
        return {key: float(values[mask].mean()) for key, values in self.per_user.items()} | self.of_lists[segment]

    def by_name(self) -> dict[str, float]:
        """All metrics by the names that an experiment tracker shows: ``ndcg_10`` of all users, ``ndcg_10_new`` of a segment."""
        return {
            f"{metric}_{k}" + ("" if segment == "all" else f"_{segment}"): value
            for segment in self.segments
            for (metric, k), value in self.of(segment).items()
        }

    def mean(self, metric: str, k: int) -> float:
        return float(self.per_user[metric, k].mean()) if self.segments["all"].any() else 0.0


def measure(
    scores: Scores,
    held: HeldOut,
    ks: list[int],
    counts: np.ndarray,
    *,
    unit: Tensor | None = None,
    variety: Variety = AS_RANKED,
) -> Measured:
    """Rank and measure. ``counts`` ``[items + 1]``: events before the cut; ``unit`` ``[items + 1, dim]``: item vectors of
    length 1, for the diversity of lists and for re-ranking by ``variety``."""
    ranking = rank(scores, held, max(ks), variety=variety, unit=unit, batch=max(1, min(USERS, SCORES // len(counts))))
    per_user = {(name, k): metric(ranking.ranks, k) for name, metric in metrics.PER_USER.items() for k in ks}
    masks = dict(held.segments())
    vectors = None if unit is None else unit.numpy()
    return Measured(per_user, masks, _of_lists(ranking.lists, masks, ks, counts, vectors))


def measure_lists(
    lists: np.ndarray,
    held: HeldOut,
    ks: list[int],
    counts: np.ndarray,
    *,
    unit: np.ndarray,
    group: np.ndarray,
    further: Mapping[str, float] | None = None,
) -> Measured:
    """Measure given lists, int64 ``[users, n]``, at each of ``ks``, or at ``n`` where that is less: of all users, of segments and
    of groups.

    ``group``: the name of each user's group, empty for none. The segment of a group is called ``group NAME``, so that it is
    never one of ``SEGMENTS``. A target that is not listed is ranked below all listed items. ``further``: metrics of all lists
    that were computed elsewhere, by name.
    """
    ks = sorted({min(k, lists.shape[1]) for k in ks})
    ranks = [places_in(items, targets) for items, targets in zip(lists, held.targets, strict=True)]
    per_user = {(name, k): metric(ranks, k) for name, metric in metrics.PER_USER.items() for k in ks}
    masks = dict(held.segments()) | {f"group {name}": group == name for name in np.unique(group[group != ""])}
    of_lists = _of_lists(lists, masks, ks, counts, unit)
    of_lists["all"] |= {(name, lists.shape[1]): value for name, value in (further or {}).items()}
    return Measured(per_user, masks, of_lists)


def _of_lists(
    lists: np.ndarray, masks: dict[str, np.ndarray], ks: list[int], counts: np.ndarray, unit: np.ndarray | None
) -> dict[str, dict[tuple[str, int], float]]:
    found: dict[str, dict[tuple[str, int], float]] = {name: {} for name in masks}
    for k in ks:
        first = lists[:, :k]
        each = None if unit is None else metrics.diversities(np.where(first < len(unit), first, 0), unit)
        for name, mask in masks.items():
            found[name]["coverage", k] = metrics.coverage(first[mask], len(counts) - 1)
            found[name]["novelty", k] = metrics.novelty(first[mask], counts)
            if each is not None:
                found[name]["diversity", k] = metrics.mean_known(each[mask])
    return found


def rows(
    measured: Measured, version: int, model: str, beside_version: int, protocol: str, split: str, now: datetime
) -> list[tuple[Any, ...]]:
    """Rows in the column order of ``model_metrics``."""
    found: list[tuple[Any, ...]] = []
    for segment, mask in measured.segments.items():
        for (metric, k), value in measured.of(segment).items():
            found.append(
                (version, model, protocol, split, segment, metric, k, value, int(mask.sum()), beside_version, now)
            )
    return found
