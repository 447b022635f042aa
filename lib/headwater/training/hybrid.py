"""The parts of a hybrid besides the sequence model, and the weights that blend their scores.

The search for weights ranks the whole catalogue without holding all of its scores. Evidence is never negative, so an item
without evidence can be in a list only if it is among the ten best of the scores without evidence. Those ten and the few hundred
items with evidence are a user's candidates, and each trial of a weight scores them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headwater.models import SequenceModel, als, ease, repeats, transitions
from headwater.models.context import ages
from headwater.models.neighbours import Neighbours
from headwater.models.ranker import blended
from headwater.training.validation import Cases, Places, mask_at, ndcg

PARTS: dict[str, Callable[[np.ndarray, int], Neighbours]] = {
    "transitions": transitions.count,
    "ease": ease.fit,
    "als": als.fit,
    "repeats": lambda _, n_items: repeats.of(n_items),
}
"""How each part is counted or fitted, from the training sequences ``[rows, seq]`` of a catalogue of ``n_items``."""

USERS = 25_000
"""Held-out users that the weights are chosen on: a choice made on few users does not generalise to others."""

WEIGHTS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0)
"""Weights that are tried for recency, which is the same for everybody."""
EVIDENCE_WEIGHTS = (*WEIGHTS, 16.0, 32.0, 64.0)
"""Weights that are tried for the other parts. With the largest ones, of goods that are bought again and again, the part alone
decides and the others break ties."""
ROUNDS = 2
TOLERANCE = 0.02
MIN_RECENCY_SHARE = 0.25
"""Popularity is the same for everybody, so its weight is lowered to the smallest one that costs at most the share ``TOLERANCE``
of NDCG, but not below the share ``MIN_RECENCY_SHARE`` of itself."""
CELLS = 1 << 26
"""Scores held at once, 256 MiB: of users × items, and then of users × candidates."""
SAMPLED_USERS = 256
"""Users sampled to estimate the number of candidates per user."""
LIST_LENGTH = 10
"""The length of the lists that are measured."""


@dataclass(frozen=True)
class Shortlists:
    """The candidates for the lists of some users, right-padded for users with fewer.

    ``logits`` ``[users, candidates]``, -inf in padding; ``parts`` of the same shape, by name; ``targets``: their positions;
    ``ideal`` ``[users]``, the DCG of the best list.
    """

    logits: Tensor
    parts: dict[str, Tensor]
    targets: Places
    ideal: Tensor

    def ndcg(self, weights: dict[str, float]) -> Tensor:
        """NDCG@10 of each user's blended list, ``[users]``."""
        return ndcg(blended(self.logits, self.parts, weights), self.targets, self.ideal, LIST_LENGTH)

    def ndcg_by_weight(self, name: str, weights: dict[str, float]) -> Tensor:
        """The sum of all users' NDCG@10 for each weight of one part that is tried (``weights_of``), float64 ``[tried]``;
        ``weights`` holds those of the other parts."""
        others, part = blended(self.logits, self.parts, {**weights, name: 0.0}), self.parts[name]
        each = (torch.add(others, part, alpha=weight) for weight in weights_of(name))
        return torch.stack([ndcg(scores, self.targets, self.ideal, LIST_LENGTH).sum() for scores in each])


def fit_parts(names: Iterable[str], sequences: np.ndarray, n_items: int) -> dict[str, Neighbours]:
    """The neighbours among ``names``, fitted on int sequences ``[rows, seq]``, left-padded with 0."""
    return {name: PARTS[name](sequences, n_items) for name in names if name in PARTS}


@torch.inference_mode()
def best_blend(model: SequenceModel, neighbours: dict[str, Neighbours], cases: Cases) -> dict[str, float]:
    """The ``blend`` with the highest validation NDCG@10 and, of equal ones, the smallest weights; found one weight after the
    other, ``ROUNDS`` times. Then the weight of recency is lowered (``TOLERANCE``, ``MIN_RECENCY_SHARE``).

    Recency is the prior of the cases; its weight is 0 if they have none. Without cases the other weights are 1.
    """
    names = [*neighbours, *(["recency"] if len(cases.prior) else [])]
    best = {**dict.fromkeys(neighbours, 0.0), "recency": 0.0}
    if not len(cases):
        return best | dict.fromkeys(names, 1.0)
    shortlists = list(shortlists_of(model, neighbours, cases))

    def quality(weights: dict[str, float]) -> float:
        return float(sum(some.ndcg(weights).sum() for some in shortlists))

    for _ in range(ROUNDS):
        for name in names:
            tried = torch.stack([some.ndcg_by_weight(name, best) for some in shortlists]).sum(0)
            best[name] = weights_of(name)[int(np.argmax(tried.numpy()))]
    enough = (1 - TOLERANCE) * quality(best)
    lower_weights = [weight for weight in WEIGHTS if MIN_RECENCY_SHARE * best["recency"] <= weight < best["recency"]]
    tried_less = ({**best, "recency": weight} for weight in lower_weights)
    return next((weights for weights in tried_less if quality(weights) >= enough), best)


def weights_of(name: str) -> tuple[float, ...]:
    """The weights that are tried for a part of a hybrid, ascending."""
    return WEIGHTS if name == "recency" else EVIDENCE_WEIGHTS


def shortlists_of(model: SequenceModel, neighbours: dict[str, Neighbours], cases: Cases) -> Iterator[Shortlists]:
    """The shortlists of all cases, or of as many, evenly spread, as ``CELLS`` allows; batched by history length."""
    matrix, prior = model.item_matrix(), torch.from_numpy(cases.prior)
    order = cases.by_length()
    sampled = torch.from_numpy(cases.item[_spread(order, SAMPLED_USERS)])
    mean_candidates = LIST_LENGTH + sum(part.evidence(sampled).nnz for part in neighbours.values()) / len(sampled)
    order = _spread(order, int(CELLS / mean_candidates) + 1)
    for users, items, context in cases.batches(order, CELLS // len(matrix)):
        logits = model.user_vectors(items, context) @ matrix.T
        evidence = {name: part.evidence(items, ages(context)) for name, part in neighbours.items()}
        cases.hide_seen(logits, users)
        is_target = mask_at(cases.target_places(users, logits.shape[1]), logits)
        chosen = is_target.clone()
        for found in evidence.values():
            chosen[found.nonzero()] = True
        for weight in WEIGHTS if len(prior) else WEIGHTS[:1]:
            alone = logits + weight * prior if weight else logits
            chosen.scatter_(1, alone.topk(min(LIST_LENGTH, alone.shape[1]), dim=1).indices, True)
        kept, picked = chosen.byte().topk(int(chosen.sum(1).max()), dim=1)
        parts = {name: torch.from_numpy(found.toarray()).gather(1, picked) for name, found in evidence.items()}
        if len(prior):
            parts["recency"] = prior[picked]
        within = logits.gather(1, picked).masked_fill(kept == 0, -torch.inf)
        rows, columns = is_target.gather(1, picked).nonzero(as_tuple=True)
        yield Shortlists(within, parts, (rows, columns), cases.ideal(users))


def _spread(users: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` of the users, evenly spread."""
    return users[np.linspace(0, len(users) - 1, min(len(users), most)).astype(int)]
