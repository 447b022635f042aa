"""The parts of a hybrid beside the sequence model, and the weights by which its scores and theirs are blended."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from headwater.models import SequenceModel, ease, transitions
from headwater.models.neighbours import Neighbours
from headwater.models.ranker import blend
from headwater.training.validation import Cases, ndcg

PARTS: dict[str, Callable[[np.ndarray, int], Neighbours]] = {"transitions": transitions.count, "ease": ease.fit}
"""What is counted or fitted on the training sequences ``[rows, seq]`` of a catalogue of n items."""

WEIGHTS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0)
ROUNDS = 2
SHARES = (0.25, 0.5, 0.75)
TOLERANCE = 0.01
"""What is popular is the same for everybody: of its weight so much is left out as costs at most this share of NDCG."""
CELLS = 1 << 26
"""Scores of users × items that the search holds for each part, 256 MiB: larger catalogues are tried on fewer users."""


def fit_parts(names: Iterable[str], sequences: np.ndarray, n_items: int) -> dict[str, Neighbours]:
    """The neighbours among ``names``, learned from int sequences ``[rows, seq]``, left-padded with 0."""
    return {name: PARTS[name](sequences, n_items) for name in names if name in PARTS}


def best_blend(model: SequenceModel, neighbours: dict[str, Neighbours], cases: Cases) -> dict[str, float]:
    """The ``blend`` with the highest validation NDCG@10, smaller weights where it is the same; found one weight after
    the other, ``ROUNDS`` times. Then recency gets the smallest of ``SHARES`` of its weight that is nearly as good.

    Recency is the prior of the cases; where they have none it weighs nothing. Without cases the other weights are 1.
    """
    names = [*neighbours, *(["recency"] if len(cases.prior) else [])]
    best = {**dict.fromkeys(neighbours, 0.0), "recency": 0.0}
    if not len(cases):
        return best | dict.fromkeys(names, 1.0)
    users = np.arange(min(len(cases), max(1, CELLS // (model.spec.n_items + 1))))
    items, types = torch.from_numpy(cases.item[users]), torch.from_numpy(cases.type[users])
    with torch.inference_mode():
        logits = model.user_vectors(items, types) @ model.item_matrix().T
        parts = {name: torch.from_numpy(part.evidence(items).toarray()) for name, part in neighbours.items()}
        if len(cases.prior):
            parts["recency"] = torch.from_numpy(cases.prior)

    def quality(weights: dict[str, float]) -> float:
        return float(ndcg(blend(logits, parts, weights), cases, users).sum())

    for _ in range(ROUNDS):
        for name in names:
            tried = [quality({**best, name: weight}) for weight in WEIGHTS]
            best[name] = WEIGHTS[int(np.argmax(tried))]
    enough = (1 - TOLERANCE) * quality(best)
    less = ({**best, "recency": best["recency"] * share} for share in SHARES)
    return next((weights for weights in less if quality(weights) >= enough), best)
