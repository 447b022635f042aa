"""A trained model opened for ranking: turns histories into scores of the whole catalogue.

Scoring, evaluation and ad-hoc recommendation all rank through this one class, so evaluation measures exactly what is served.
``training.artifact`` opens a model folder as a ranker. All tensors are on the CPU, except for the encoder of a ranker for a GPU
(``on``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn.functional import normalize

from headwater.models.base import SequenceModel
from headwater.models.context import ages
from headwater.models.histories import flat, padded_rows
from headwater.models.neighbours import Evidence, Neighbours

ENCODER_BATCH = {"cpu": 192, "cuda": 4_096}
"""Histories per call of the encoder, by device: larger batches mix more different lengths, smaller ones need more calls."""

GATHER_BATCH = 65_536
"""Items whose vectors are copied or converted at once, so that there is never a second copy of the whole matrix."""


@dataclass(frozen=True)
class Query:
    """The query that scores the catalogue for some users: ``users @ rows.T + evidence``; ``users`` ``[batch, dim + 1]``."""

    users: Tensor
    evidence: Evidence

    @property
    def cells(self) -> sparse.csr_matrix | None:
        """The sparse matrix added to the product, ``[batch, items + 1]``, newcomers included; None if nothing is blended in."""
        return self.evidence.cells


class Ranker:
    """A sequence model, blended in a hybrid with item-to-item neighbours and recent popularity.

    Recent popularity changes from day to day and is not part of a model version: the caller adds it (``with_recency``). Users
    without a history are ranked by it alone. ``with_recency``, ``with_newcomers`` and ``on`` return a copy that shares the
    tensors, and leave the original unchanged.
    """

    def __init__(
        self,
        model: SequenceModel,
        facts: dict[str, Any],
        neighbours: Mapping[str, Neighbours] | None = None,
        trained: np.ndarray | None = None,
    ) -> None:
        """``neighbours``: those of a hybrid, by their names in its ``blend``; None for a model that is not a hybrid.
        ``trained``: bool ``[n_items + 1]``, the items whose vectors were learned from events or content; None: all."""
        self.model = model.eval()
        self.facts = facts
        self.neighbours = dict(neighbours or {})
        self.n_items: int = model.spec.n_items
        self.max_length: int = facts.get("max_length", model.spec.max_length)
        self.name: str = "+".join([model.spec.kind, *self.neighbours])
        with torch.inference_mode():
            self.item_vectors: Tensor = model.item_matrix().detach().float()
            """``[n_items + 1, dim]``; without item features these are the model's weights, not a copy: if they are a mapped
            file, processes share it."""
        self.trained = np.ones(self.n_items + 1, dtype=bool) if trained is None else trained
        self.newcomers, self.newcomer_items = self.item_vectors[:0], torch.empty(0, dtype=torch.int64)
        self.recency = torch.zeros(self.size)

    def on(self, device: torch.device) -> Ranker:
        """A ranker with its encoder on ``device``; the encoder of this ranker stays where it is."""
        made = copy.copy(self)
        made.model = on_device(self.model, device)
        return made

    @property
    def device(self) -> torch.device:
        """The device of the encoder."""
        return next(self.model.parameters()).device

    @property
    def blend(self) -> dict[str, float]:
        """Weights of a hybrid's neighbours and of recency, by name; empty for a model that is not a hybrid."""
        return self.facts.get("blend", {})

    @property
    def transitions(self) -> Neighbours | None:
        """The item-to-item transitions of the version; None if it has none."""
        return self.neighbours.get("transitions")

    def without_blend(self) -> Ranker:
        """The sequence model of a hybrid without the other parts of the blend, to be measured separately."""
        facts = {name: fact for name, fact in self.facts.items() if name != "blend"}
        return Ranker(self.model, facts, trained=self.trained)

    def with_newcomers(self, items: Tensor, vectors: Tensor) -> Ranker:
        """A ranker with ``vectors`` ``[newcomers, dim]`` for newcomers, the ``items`` that it was not trained on: int64,
        ascending, among them all from ``n_items + 1`` up to the last. Histories still leave out those that came after the
        training. Recency is reset and has to be set again."""
        made = copy.copy(self)
        vars(made).pop("unit_vectors", None)  # the cached matrix has a row for each newcomer too
        made.newcomers, made.newcomer_items = vectors, items
        made.recency = torch.zeros(made.size)
        return made

    def with_recency(self, counts: np.ndarray) -> Ranker:
        """A ranker with the recent popularity of items (``popularity.decayed_counts``, of any length)."""
        known = np.zeros(self.size)
        known[: len(counts)] = counts[: len(known)]
        made = copy.copy(self)
        made.recency = recency_scores(known)
        return made

    @property
    def size(self) -> int:
        """The number of scored items, newcomers and padding included."""
        return 1 + max([self.n_items, *self.newcomer_items[-1:].tolist()])

    def vectors(self, items: Tensor) -> Tensor:
        """The vectors of items, newcomers included, int64 of any shape → the same shape plus ``dim``."""
        found = self.item_vectors[items.clamp(max=self.n_items)]
        if len(self.newcomers):
            place = torch.searchsorted(self.newcomer_items, items).clamp(max=len(self.newcomers) - 1)
            new = self.newcomer_items[place] == items
            found[new] = self.newcomers[place[new]]
        return found

    def directions(self, items: Tensor) -> Tensor:
        """The same, each vector scaled to length 1; computed on demand, because those of all items would be a second matrix."""
        return normalize(self.vectors(items), dim=-1)

    def rows(self, items: Tensor) -> Tensor:
        """What the users of a query are multiplied with, for some items ``[n]``: ``[n, dim + 1]``, their vectors and, in the
        last column, their recent popularity."""
        found = torch.empty(len(items), self.item_vectors.shape[1] + 1)
        for part, wanted in zip(found.split(GATHER_BATCH), items.split(GATHER_BATCH), strict=True):
            part[:, :-1] = self.vectors(wanted)
        found[:, -1] = self.recency[items]
        return found

    @cached_property
    def unit_vectors(self) -> Tensor:
        """Vectors of all items, scaled to length 1, ``[items + 1, dim]``, for evaluation metrics; scoring uses ``directions``."""
        return self.directions(torch.arange(self.size))

    def pad(self, items: Sequence[Any], context: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Histories, each a list or array of ints, as two int64 tensors ``[batch, max_length]``, left-padded with 0, newest last.

        Items that the model does not know (new since its training) are left out.
        """
        (user, item), (context_user, codes) = flat(items), flat(context)
        assert np.array_equal(user, context_user), "each event has a context"
        padded_items, padded_codes = self.pad_steps(len(items), user, item, codes)
        return padded_items, padded_codes

    def pad_steps(self, users: int, user: np.ndarray, item: np.ndarray, *further: np.ndarray) -> list[Tensor]:
        """The items, and whatever ``further`` holds of each event, in the same form. The events of all users are in flat arrays:
        user after user, oldest first."""
        known = (item > 0) & (item <= self.n_items)
        rows = (padded_rows(user[known], part[known], users, self.max_length) for part in (item, *further))
        return [torch.from_numpy(part) for part in rows]

    @torch.inference_mode()
    def query(self, items: Tensor, context: Tensor) -> Query:
        """The query that ranks the catalogue for some histories (``pad``): one product with ``rows`` plus sparse evidence."""
        users = torch.empty(len(items), self.item_vectors.shape[1] + 1)
        users[:, :-1] = self._encode(items, context)
        users[:, -1] = self.blend.get("recency", 0.0)
        cold = items[:, -1] == 0
        users[cold, :-1], users[cold, -1] = 0.0, 1.0
        parts = tuple((part, weight) for name, part in self.neighbours.items() if (weight := self.blend[name]))
        return Query(users, Evidence(parts, items, ages(context), self.size))

    def score_deviations(self, query: Query) -> Tensor:
        """The standard deviation of the model's scores over the catalogue for each user, ``[batch]``; 1 for a zero user vector.

        It follows from the first two moments of the item vectors, √(uᵀSu - (u·m)²), so the scores themselves are never computed.
        """
        users = query.users[:, :-1].double()
        first, second = self._moments
        spread = ((users @ second * users).sum(1) - (users @ first) ** 2).clamp(min=0).sqrt().float()
        return torch.where((users == 0).all(dim=1), 1.0, spread)

    def history_part(self, wanted: Tensor, scores: Tensor, query: Query) -> Tensor:
        """The part of a few items' scores that comes from the history: ``scores`` (``scores_of``) without recency, minus the
        mean of that over the catalogue. ``wanted`` int64, ``scores`` and the result are ``[batch, n]``."""
        alone = scores - query.users[:, -1:] * self.recency[wanted]
        mean = (query.users[:, :-1].double() @ self._moments[0]).float()
        if query.cells is not None:
            mean += torch.from_numpy(np.asarray(query.cells.sum(axis=1), dtype=np.float32).ravel()) / self.n_items
        return alone - mean.unsqueeze(1)

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """The first two moments of the item vectors, ``[dim]`` and ``[dim, dim]``."""
        dim = self.item_vectors.shape[1]
        first, second = torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dim, dtype=torch.float64)
        for part in self.item_vectors[1:].split(GATHER_BATCH):
            real = part.double()
            first += real.sum(0)
            second += real.T @ real
        return first / self.n_items, second / self.n_items

    def _encode(self, items: Tensor, context: Tensor) -> Tensor:
        """User vectors ``[batch, dim]``; histories of similar length are encoded together, which saves padding."""
        lengths = (items > 0).sum(dim=1)
        users = torch.zeros(len(items), self.item_vectors.shape[1])
        for some in lengths.argsort().split(ENCODER_BATCH[self.device.type]):
            longest = max(lengths[some].tolist(), default=0) or 1
            steps = (part[some, -longest:].to(self.device) for part in (items, context))
            users[some] = self.model.user_vectors(*steps).float().cpu()
        return users

    @torch.inference_mode()
    def scores_of(self, wanted: Tensor, query: Query, traces: Sequence[Tensor] | None = None) -> Tensor:
        """Scores ``[batch, n]`` of a few ``wanted`` items of each user, int64 ``[batch, n]``; ``traces`` of these items in the
        histories of the query are computed unless given."""
        rows = self.rows(wanted.flatten()).unflatten(0, wanted.shape)  # [batch, n, dim + 1]
        product = (rows @ query.users.unsqueeze(2)).squeeze(2)
        return product + query.evidence.of(query.evidence.traces(wanted) if traces is None else traces)

    @torch.inference_mode()
    def scores(self, items: Tensor, context: Tensor) -> Tensor:
        """Scores of the whole catalogue, ``[batch, size]``; column 0 is padding."""
        query = self.query(items, context)
        every = self.vectors(torch.arange(self.size)) if len(self.newcomers) else self.item_vectors
        scores = query.users[:, :-1] @ every.T + query.users[:, -1:] * self.recency
        return scores if query.cells is None else scores + torch.from_numpy(query.cells.toarray())


def on_device(model: SequenceModel, device: torch.device) -> SequenceModel:
    """A copy of a model on ``device``; tensors already there are shared, not copied."""
    moved: dict[int, Tensor] = {id(tensor): tensor.to(device) for tensor in model.buffers()}
    for tensor in model.parameters():
        moved[id(tensor)] = nn.Parameter(tensor.detach().to(device), tensor.requires_grad)
    return copy.deepcopy(model, moved).to(device)  # also lets a recurrent model lay out its weights for the GPU


def recency_scores(counts: np.ndarray) -> Tensor:
    """Decayed counts ``[items + 1]`` as standardised logarithms. Of equal counts the lower index scores slightly higher, or the
    same if the indices are close and the catalogue is large: float32 cannot tell them apart."""
    logs = np.log(counts + 0.1) - np.arange(len(counts)) / len(counts) * 1e-4
    scores = torch.from_numpy(logs).float()
    real = scores[1:]  # without padding
    return (scores - real.mean()) / (real.std(correction=0) + 1e-6)


def blended(logits: Tensor, parts: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The logits plus the weighted sum of ``parts``, all of one shape.

    A softmax's logits are log-probabilities up to a constant per user. ``parts``, the evidence of neighbours and standardised
    recency, are logarithms too, so the sum is a product of experts (Hinton, 2002).
    """
    return logits + sum(weights[name] * scores for name, scores in parts.items() if weights[name])
