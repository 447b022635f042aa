"""Held-out cases as arrays, and the NDCG for early stopping."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headwater.models import SequenceModel

PRIOR_WEIGHTS = (4.0, 2.0, 1.0, 0.0)
"""Weights of the prior that are tried, of which the best counts; 0 must be last, for a model that will not be blended."""
ENCODED_CASES = 512
"""Histories that are encoded at once; the encoder's memory grows with them, whatever the size of the catalogue."""
TILE_SCORES = 1 << 25
"""Scores of users × items in memory at once (128 MiB, and as much again while they are blended)."""


Places = tuple[Tensor, Tensor]
"""Rows and columns of some cells of a matrix, int64 ``[cells]`` each."""


@dataclass(frozen=True)
class Cases:
    """Held-out users: ``item`` and ``context`` int64 ``[users, seq]`` (left-padded); seen items and targets as CSR.

    ``seen_start``/``target_start`` are int64 ``[users + 1]``; user u's targets are
    ``target[target_start[u] : target_start[u + 1]]``. ``prior``: for a model that will be part of a hybrid, the standardised
    recency ``[items + 1]`` that it will be blended with; otherwise empty.
    """

    item: np.ndarray
    context: np.ndarray
    seen_start: np.ndarray
    seen: np.ndarray
    target_start: np.ndarray
    target: np.ndarray
    prior: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    def __len__(self) -> int:
        return len(self.item)

    def first(self, users: int) -> Cases:
        """The first cases, at most ``users`` of them."""
        seen, target = self.seen_start[: users + 1], self.target_start[: users + 1]
        return Cases(
            self.item[:users],
            self.context[:users],
            seen,
            self.seen[: seen[-1]],
            target,
            self.target[: target[-1]],
            self.prior,
        )

    def by_length(self) -> np.ndarray:
        """All cases, those with the shortest history first."""
        return np.argsort((self.item > 0).sum(axis=1), kind="stable")

    def batches(self, order: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """The cases in ``order``, at most ``size`` and ``ENCODED_CASES`` at once: their indices, and their items and context,
        int64 ``[batch, longest]``. In order of length they need little padding."""
        size = max(1, min(size, ENCODED_CASES))
        for users in (order[start : start + size] for start in range(0, len(order), size)):
            longest = max(1, int((self.item[users] > 0).sum(axis=1).max()))
            items, context = (torch.from_numpy(part[users, -longest:]) for part in (self.item, self.context))
            yield users, items, context

    def hide_seen(self, scores: Tensor, users: np.ndarray) -> None:
        """Set the scores ``[users, items + 1]`` of these users' seen items, and of padding, to -inf."""
        scores[:, 0] = -torch.inf
        scores[_cells(self.seen_start, self.seen, users, scores.shape[1])] = -torch.inf

    def target_places(self, users: np.ndarray, width: int) -> Places:
        """The positions of these users' targets among ``width`` items; targets that the model does not know are left out."""
        return _cells(self.target_start, self.target, users, width)

    def ideal(self, users: np.ndarray, k: int = 10) -> Tensor:
        """DCG@k of the best list for each of these users, ``[users]``; targets that the model does not know count too."""
        targets = self.target_start[users + 1] - self.target_start[users]
        return _discounts(k).cumsum(0)[torch.from_numpy(np.clip(targets, 1, k)) - 1]

    def save(self, path: Path) -> None:
        np.savez(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def load(cls, path: Path) -> Cases:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})


def ndcg(scores: Tensor, targets: Places, ideal: Tensor, k: int = 10) -> Tensor:
    """NDCG@k of some users, float64 ``[users]``: binary gains, ties count against the model; items scored -inf are in no list.

    ``scores`` ``[users, candidates]`` is changed in place; ``targets``: their positions; ``ideal`` ``[users]``.
    """
    scores[targets] = scores[targets].nextafter(scores.new_tensor(-torch.inf))
    best = scores.topk(min(k, scores.shape[1]), dim=1)
    hits = mask_at(targets, scores).gather(1, best.indices) & (best.values > -torch.inf)
    return (hits * _discounts(hits.shape[1]).to(hits.device)).sum(1) / ideal


def mask_at(places: Places, like: Tensor) -> Tensor:
    """Bool of the shape of ``like``, True at ``places``."""
    found = torch.zeros_like(like, dtype=torch.bool)
    found[places] = True
    return found


def mean_ndcg(model: SequenceModel, cases: Cases, device: torch.device) -> float:
    """Mean NDCG@10 of a model over the cases: the whole catalogue is ranked, without seen items.

    If the cases have a prior, it is the NDCG of model and prior blended, with the best of ``PRIOR_WEIGHTS``: it rewards what a
    model learns beyond popularity, not that it learns popularity first. Leaves the model in evaluation mode.
    """
    model.eval()
    weights = PRIOR_WEIGHTS if len(cases.prior) else PRIOR_WEIGHTS[-1:]
    totals = np.zeros(len(weights))
    with torch.inference_mode():
        matrix, prior = model.item_matrix(), torch.from_numpy(cases.prior).to(device)
        for users, items, context in cases.batches(cases.by_length(), TILE_SCORES // len(matrix)):
            scores = (model.user_vectors(items.to(device), context.to(device)) @ matrix.T).float()
            cases.hide_seen(scores, users)
            rows, columns = cases.target_places(users, scores.shape[1])
            targets, ideal = (rows.to(device), columns.to(device)), cases.ideal(users).to(device)
            for place, weight in enumerate(weights):
                blended = scores + weight * prior if weight else scores  # 0 comes last, so ndcg may change these
                totals[place] += float(ndcg(blended, targets, ideal).sum())
    return float(totals.max()) / len(cases)


def _discounts(k: int) -> Tensor:
    return 1 / torch.arange(2, k + 2, dtype=torch.float64).log2()


def _cells(start: np.ndarray, values: np.ndarray, users: np.ndarray, width: int) -> Places:
    """Rows and columns of the entries of a CSR array for some users; columns from ``width`` on are left out."""
    counts = start[users + 1] - start[users]
    ends = counts.cumsum()
    places = np.arange(counts.sum()) - np.repeat(ends - counts - start[users], counts)
    rows, columns = np.repeat(np.arange(len(users)), counts), values[places]
    return torch.from_numpy(rows[columns < width]), torch.from_numpy(columns[columns < width])
