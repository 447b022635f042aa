"""The weights by which a hybrid blends item transitions and recent popularity into a sequence model's scores."""

from __future__ import annotations

import numpy as np
import torch

from headwater.models import SequenceModel
from headwater.models.ranker import blend, standardised
from headwater.models.transitions import Transitions
from headwater.training.validation import Cases, ndcg

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
ROUNDS = 2
SHARES = (0.25, 0.5, 0.75)
TOLERANCE = 0.01
"""What is popular is the same for everybody: of its weight so much is left out as costs at most this share of NDCG."""
USERS = 1_000
"""Validation users that the search looks at; a round ranks the catalogue for each of them fourteen times."""


def best_blend(model: SequenceModel, transitions: Transitions, cases: Cases) -> dict[str, float]:
    """The ``blend`` with the highest validation NDCG@10, smaller weights where it is the same; found one weight after
    the other, ``ROUNDS`` times. Then recency gets the smallest of ``SHARES`` of its weight that is nearly as good.

    Recency is the prior of the cases. Without cases both weights are 1.
    """
    if not len(cases):
        return {"transitions": 1.0, "recency": 1.0}
    users = np.arange(min(len(cases), USERS))
    items, types = torch.from_numpy(cases.item[users]), torch.from_numpy(cases.type[users])
    recency = torch.from_numpy(cases.prior)
    with torch.inference_mode():
        logits = standardised(model.user_vectors(items, types) @ model.item_matrix().T)
        counted = transitions.scores(items)

    def quality(weights: dict[str, float]) -> float:
        return float(ndcg(blend(logits, counted, recency, weights), cases, users).sum())

    best = {"transitions": 0.0, "recency": 0.0}
    for _ in range(ROUNDS):
        for name in best:
            tried = [quality({**best, name: weight}) for weight in WEIGHTS]
            best[name] = WEIGHTS[int(np.argmax(tried))]
    enough = (1 - TOLERANCE) * quality(best)
    less = ({**best, "recency": best["recency"] * share} for share in SHARES)
    return next((weights for weights in less if quality(weights) >= enough), best)
