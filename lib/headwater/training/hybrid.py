"""The weight by which a hybrid blends item transitions into a sequence model's scores: the best on validation."""

from __future__ import annotations

import numpy as np
import torch

from headwater.models import SequenceModel
from headwater.models.ranker import blend
from headwater.models.transitions import Transitions
from headwater.training.validation import Cases, ndcg

WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def best_weight(model: SequenceModel, transitions: Transitions, cases: Cases | None, batch: int = 512) -> float:
    """The weight of ``WEIGHTS`` with the highest validation NDCG@10, the smaller one of equals; 1 without cases."""
    if cases is None or not len(cases):
        return 1.0
    totals = np.zeros(len(WEIGHTS))
    with torch.inference_mode():
        for start in range(0, len(cases), batch):
            rows = np.arange(start, min(start + batch, len(cases)))
            items = torch.from_numpy(cases.item[rows])
            logits = model.user_vectors(items, torch.from_numpy(cases.type[rows])) @ model.item_matrix().T
            counted = transitions.scores(items)
            for place, weight in enumerate(WEIGHTS):
                totals[place] += ndcg(blend(logits, counted, weight), cases, rows).sum()
    return WEIGHTS[int(totals.argmax())]
