"""Variety within a list: greedy re-ranking of a wider set of candidates. Pure torch.

Every rule picks one item after another and lowers the scores of candidates that are similar to earlier picks, so the first k
items of a longer list are the list of length k. ``mmr``: maximal marginal relevance (Carbonell and Goldstein, 1998), by the most
similar pick. ``dpp``: greedy maximisation of a determinantal point process (Chen, Zhang and Zhou, 2018, algorithm 1), by all
picks together. ``calibrated``: the categories of a list in the proportions of the user's history (Steck, 2018). A cap limits,
under any rule, how many items of a list may share a category.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headwater.config import Topn


@dataclass(frozen=True)
class Cap:
    """At most ``most`` items of a list share a category: ``categories`` int64 ``[batch, candidates, each]``, 0 is none."""

    categories: Tensor
    most: int


SMOOTHING = 0.1
"""A list starts as if it held this many items in the proportions of the mix: for lists of ten, Steck's 0.01."""

Rule = Callable[[Tensor, Tensor, int, float, Cap | None], tuple[Tensor, Tensor]]


def mmr(scores: Tensor, vectors: Tensor, n: int, weight: float, cap: Cap | None = None) -> tuple[Tensor, Tensor]:
    """The ``n`` picked candidates in pick order: adjusted scores and positions, ``[batch, n]``; ``-inf`` where none is left.

    ``scores`` ``[batch, candidates]`` best first, ``-inf`` where there is no candidate; ``vectors`` ``[batch, candidates, dim]``
    of length 1. A score is lowered by strength · span · its highest cosine with an earlier pick, 0 at least: span is the
    difference between the best and the worst score of the row, strength is weight / (1 - weight). Adjusted scores never rise
    from one pick to the next; the better candidate wins a tie; weight 0 keeps the order.
    """
    strength = _span(scores) * weight / (1 - weight)
    similarity = torch.zeros_like(scores)
    picks = _Picks(scores, n, cap)
    for _ in range(n):
        pick = picks.take(scores - strength * similarity)
        similarity = torch.maximum(similarity, _cosines(vectors, pick))
    return picks.values, picks.places


def dpp(scores: Tensor, vectors: Tensor, n: int, weight: float, cap: Cap | None = None) -> tuple[Tensor, Tensor]:
    """The same, by greedy maximisation of log det L with L = diag(q) · S · diag(q), S = (1 + cosine) / 2.

    q² = exp(score / (strength · span)). In units of scores, the gain of a pick is therefore its score plus strength · span
    · log d², where d² is the squared length of its part outside the space that the earlier picks span.
    """
    strength = _span(scores) * weight / (1 - weight)
    residual = torch.ones_like(scores)  # d² of the paper, without q
    basis = scores.new_zeros(len(scores), n, scores.shape[1])
    picks = _Picks(scores, n, cap)
    for step in range(n):
        pick = picks.take(scores + strength * residual.clamp(min=1e-9).log())
        similarity = (1 + _cosines(vectors, pick)) / 2
        own = basis[:, :step].gather(2, pick.unsqueeze(1).expand(-1, step, 1))  # [batch, step, 1]
        length = residual.gather(1, pick)  # [batch, 1]; 0 once the picks span everything
        new = (similarity - (own * basis[:, :step]).sum(dim=1)) * torch.where(length > 1e-6, length, torch.inf).rsqrt()
        basis[:, step] = new
        residual = residual - new**2
    return picks.values, picks.places


@dataclass(frozen=True)
class Mix:
    """The category mix of each user's history: ``categories`` int64 ``[batch, most]``, 0 is none, and their ``shares``, which
    sum to one or zero."""

    categories: Tensor
    shares: Tensor

    def membership(self, categories: Tensor) -> Tensor:
        """The membership of each candidate in each category of the mix, ``[batch, candidates, most]``: 1 / k for each of a
        candidate's k ``categories``, int64 ``[batch, candidates, each]``."""
        own = self.categories[:, None, None, :]
        within = ((categories.unsqueeze(3) == own) & (own > 0)).any(dim=2)
        return within / (categories > 0).sum(dim=2, keepdim=True).clamp(min=1)


def calibrated(
    scores: Tensor, membership: Tensor, shares: Tensor, n: int, weight: float, cap: Cap | None = None
) -> tuple[Tensor, Tensor]:
    """The same for lists whose categories follow the ``shares`` ``[batch, most]`` of the user's mix; ``membership`` is
    that of the candidates (``Mix.membership``).

    Steck's greedy maximisation in a form whose gains never rise: the gain of a pick is its score plus strength · span · the
    increase of Σ share · log(share · SMOOTHING + membership of the picks), which is largest for picks in the proportions of the
    shares.
    """
    strength = _span(scores) * weight / (1 - weight)
    shares = shares.to(scores.dtype).unsqueeze(1)  # [batch, 1, most]
    filled = SMOOTHING * shares
    picks = _Picks(scores, n, cap)
    for _ in range(n):
        more = torch.log1p(membership / filled.clamp(min=1e-9))  # [batch, candidates, most]
        pick = picks.take(scores + strength * (shares * more).sum(dim=2))
        filled = filled + membership.gather(1, pick.unsqueeze(2).expand(-1, 1, membership.shape[2]))
    return picks.values, picks.places


RULES: dict[str, Rule] = {"mmr": mmr, "dpp": dpp}


@dataclass(frozen=True)
class Variety:
    """A rule, its weight from 0 (none) to below 1, the number of candidates that a list is picked from, and the most items of a
    list that may share a category (0: any number)."""

    rule: str = "mmr"
    weight: float = 0.0
    candidates: int = 100
    most: int = 0

    @classmethod
    def of(cls, topn: Topn) -> Variety:
        return cls(topn.variety, topn.variety_weight, topn.candidates, topn.max_per_category)

    @property
    def picks(self) -> bool:
        """Whether lists may differ from the best candidates."""
        return bool(self.weight or self.most)

    def width(self, n: int) -> int:
        """The number of candidates that a list of ``n`` needs."""
        return max(n, self.candidates) if self.picks else n

    def pick(
        self,
        scores: Tensor,
        items: Tensor,
        n: int,
        directions: Callable[[Tensor], Tensor],
        categories: Tensor | None = None,
        mix: Mix | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scores and items ``[batch, n]`` picked from those of the candidates ``[batch, width]``, best first; ``-inf`` and 0
        where none is left.

        ``directions`` returns the vectors of items, scaled to length 1, ``[batch, width, dim]``. ``categories`` int64
        ``[items, each]`` are indexed by item, 0 is none; without them there is no cap. Calibrated lists follow ``mix``; without
        a mix or categories they are the best candidates.
        """
        if not self.picks:
            return scores[:, :n], items[:, :n]
        cap = Cap(categories[items], self.most) if self.most and categories is not None else None
        if self.rule == "calibrated":
            if categories is None or mix is None:
                return scores[:, :n], items[:, :n]
            values, places = calibrated(scores, mix.membership(categories[items]), mix.shares, n, self.weight, cap)
        else:
            values, places = RULES[self.rule](scores, directions(items), n, self.weight, cap)
        return values, items.gather(1, places).masked_fill(values == -torch.inf, 0)


class _Picks:
    """The picks so far, ``values`` and ``places`` ``[batch, n]``."""

    def __init__(self, scores: Tensor, n: int, cap: Cap | None) -> None:
        self.real = scores > -torch.inf
        self.cap = cap
        if cap is not None:
            self.shared = torch.zeros_like(cap.categories)  # the number of picks in each category of a candidate
        self.taken = torch.zeros_like(self.real)
        self.values = scores.new_full((len(scores), n), -torch.inf)
        self.places = torch.zeros(len(scores), n, dtype=torch.int64, device=scores.device)
        self.step = 0

    def take(self, values: Tensor) -> Tensor:
        """Pick the best candidate of each row and return its position ``[batch, 1]``; unfit positions come last."""
        fit = self.real if self.cap is None else self.real & (self.shared < self.cap.most).all(dim=2)
        values = torch.where(fit, values, -torch.inf)
        # below every other score but above the positions already taken, so that no position is taken twice
        order = torch.where(fit, values, torch.finfo(values.dtype).min).masked_fill(self.taken, -torch.inf)
        pick = order.argmax(dim=1, keepdim=True)
        self.values[:, self.step : self.step + 1] = values.gather(1, pick)
        self.places[:, self.step : self.step + 1] = pick
        self.taken.scatter_(1, pick, value=True)
        self.step += 1
        if self.cap is not None:
            self._count(self.cap.categories, pick)
        return pick

    def _count(self, categories: Tensor, pick: Tensor) -> None:
        each = categories.shape[2]
        picked = categories.gather(1, pick.unsqueeze(2).expand(-1, 1, each)).unsqueeze(2)  # [batch, 1, 1, each]
        self.shared += ((categories.unsqueeze(3) == picked) & (picked > 0)).any(dim=3)


def _span(scores: Tensor) -> Tensor:
    """The difference between the best and the worst score of each row, ``[batch, 1]``; 0 if it has no candidate."""
    lowest = torch.where(scores > -torch.inf, scores, torch.inf).amin(dim=1, keepdim=True)
    return torch.where(lowest < torch.inf, scores[:, :1] - lowest, 0.0)


def _cosines(vectors: Tensor, pick: Tensor) -> Tensor:
    """Cosines ``[batch, candidates]`` of all candidates with the one at ``pick`` ``[batch, 1]``."""
    one = vectors.gather(1, pick.unsqueeze(2).expand(-1, 1, vectors.shape[2]))  # [batch, 1, dim]
    return (vectors @ one.transpose(1, 2)).squeeze(2)
