"""A trained model opened for ranking: histories in, scores of the whole catalogue out, tile by tile.

Scoring, evaluation and ad-hoc recommendation all rank through this one class, so that what is measured is what is
served. Pure torch on the CPU; the model directory is checked as it is opened (``training.artifact``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.models.transitions import Transitions


class Ranker:
    """A sequence model, blended with item transitions where the version is a hybrid.

    A hybrid's score is the model's logits, standardised over the catalogue for each user, plus ``blend`` times the
    transition score of the last few events.
    """

    def __init__(self, model: Any, facts: dict[str, Any], transitions: Transitions | None = None) -> None:
        self.model = model.eval()
        self.facts = facts
        self.transitions = transitions
        self.n_items: int = model.spec.n_items
        self.max_length: int = model.spec.max_length
        self.name: str = model.spec.kind + ("+transitions" if transitions is not None else "")
        with torch.inference_mode():
            self.item_vectors: Tensor = model.item_matrix().detach().float()

    @classmethod
    def open(cls, folder: Path) -> Ranker:
        """Open a model directory; raises ModelError where it is damaged."""
        from headwater.training import artifact

        model, facts = artifact.load(folder)
        return cls(model, facts, artifact.load_transitions(folder))

    def pad(self, items: Iterable[Any], types: Iterable[Any]) -> tuple[Tensor, Tensor]:
        """Histories, each a list or array of ints, as two int64 tensors ``[batch, max_length]``, left-padded with 0, newest last.

        Items that the model does not know (new since its training) are left out.
        """
        known = []
        for history, kinds in zip(items, types, strict=True):
            item = np.asarray(history, dtype=np.int64)
            keep = (item > 0) & (item <= self.n_items)
            known.append((item[keep][-self.max_length :], np.asarray(kinds, dtype=np.int64)[keep][-self.max_length :]))
        padded = np.zeros((2, len(known), self.max_length), dtype=np.int64)
        for row, (item, kind) in enumerate(known):
            if len(item):
                padded[0, row, -len(item) :] = item
                padded[1, row, -len(item) :] = kind
        return torch.from_numpy(padded[0]), torch.from_numpy(padded[1])

    def tile_scores(self, items: Tensor, types: Tensor) -> Callable[[int, int], Tensor]:
        """A function that gives ``[batch, stop - start]`` scores of the items ``start … stop - 1``."""
        users = self.model.user_vectors(items, types).float()  # [batch, dim]
        if self.transitions is None:
            return lambda start, stop: users @ self.item_vectors[start:stop].T
        scores = blend(users @ self.item_vectors.T, self.transitions.scores(items), self.facts["blend"])
        return lambda start, stop: scores[:, start:stop].clone()

    def scores(self, items: Tensor, types: Tensor) -> Tensor:
        """Scores of the whole catalogue, ``[batch, n_items + 1]``; column 0 is padding."""
        with torch.inference_mode():
            return self.tile_scores(items, types)(0, self.n_items + 1)


def blend(logits: Tensor, transitions: Tensor, weight: float) -> Tensor:
    """Standardised logits plus weighted transition scores, both ``[batch, n_items + 1]``."""
    mean, spread = logits[:, 1:].mean(1, keepdim=True), logits[:, 1:].std(1, keepdim=True)
    return (logits - mean) / (spread + 1e-6) + weight * transitions
