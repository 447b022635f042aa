"""Validation cases as arrays, and the NDCG that stops training early."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headwater.models import SequenceModel

PRIOR_WEIGHTS = (0.0, 1.0, 2.0, 4.0)
"""Weights of the prior that are tried, for the best of them to count."""


@dataclass(frozen=True)
class Cases:
    """Users to rank for: ``item`` and ``type`` int64 ``[users, seq]`` (left-padded); seen items and targets as CSR.

    ``seen_start``/``target_start`` are int64 ``[users + 1]``; user u's targets are
    ``target[target_start[u] : target_start[u + 1]]``. ``prior``: for a model that will be blended, what it is blended
    with, a standardised ``[items + 1]``; empty where it will rank alone.
    """

    item: np.ndarray
    type: np.ndarray
    seen_start: np.ndarray
    seen: np.ndarray
    target_start: np.ndarray
    target: np.ndarray
    prior: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    def __len__(self) -> int:
        return len(self.item)

    def save(self, path: Path) -> None:
        np.savez(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def load(cls, path: Path) -> Cases:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})


def ndcg(scores: Tensor, cases: Cases, rows: np.ndarray, k: int = 10) -> np.ndarray:
    """NDCG@k of some users, ``[rows]``: binary gains, the whole catalogue ranked, seen items left out, ties against us.

    ``scores`` ``[rows, items + 1]`` is changed in place.
    """
    gains = np.zeros(len(rows))
    scores[:, 0] = -torch.inf
    for row, user in enumerate(rows):
        seen = cases.seen[cases.seen_start[user] : cases.seen_start[user + 1]]
        target = cases.target[cases.target_start[user] : cases.target_start[user + 1]]
        scores[row, torch.from_numpy(seen[seen < scores.shape[1]])] = -torch.inf
        known = torch.from_numpy(target[target < scores.shape[1]])
        if len(known) and len(target):
            wanted = scores[row, known]
            above = (scores[row].unsqueeze(0) >= wanted.unsqueeze(1)).sum(1)  # itself included: the rank from 1
            # targets of equal score are told apart by their order
            rank = np.sort(above.numpy())
            rank = rank[rank <= k]
            ideal = (1 / np.log2(np.arange(2, min(len(target), k) + 2))).sum()
            gains[row] = (1 / np.log2(rank + 1)).sum() / ideal
    return gains


def mean_ndcg(model: SequenceModel, cases: Cases, device: torch.device, batch: int = 512) -> float:
    """Mean NDCG@10 of a model over the cases; leaves the model in evaluation mode.

    With a prior, of the model and the prior together: what a model learns beside popularity counts, and not that it
    learns popularity first.
    """
    model.eval()
    weights = PRIOR_WEIGHTS if len(cases.prior) else PRIOR_WEIGHTS[:1]
    totals = np.zeros(len(weights))
    with torch.inference_mode():
        matrix = model.item_matrix()
        lengths = (cases.item > 0).sum(axis=1)
        order = np.argsort(lengths, kind="stable")  # histories of like length go together, without their padding
        for start in range(0, len(cases), batch):
            rows = order[start : start + batch]
            longest = max(1, lengths[rows[-1]])
            items = torch.from_numpy(cases.item[rows, -longest:]).to(device)
            types = torch.from_numpy(cases.type[rows, -longest:]).to(device)
            scores = (model.user_vectors(items, types) @ matrix.T).float().cpu()
            for place, weight in enumerate(weights):
                blended = scores + weight * torch.from_numpy(cases.prior) if weight else scores.clone()
                totals[place] += ndcg(blended, cases, rows).sum()
    return float(totals.max()) / len(cases)
