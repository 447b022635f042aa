"""The moving average of a model's weights over the steps (Polyak and Juditsky, 1992), which forgets the noise of the last few."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from headwater.models import SequenceModel


class Average:
    """``model`` holds the average: the weights of the first step, then ``share`` of the old at each further one.

    Where a step moves only some rows of the item table, the others' averages are left behind and caught up with before
    they are needed: over k steps in which weights w stand still an average a becomes share^k a + (1 - share^k) w.
    """

    def __init__(self, model: SequenceModel, share: float, sparse_items: bool) -> None:
        self.share = share
        self.steps = torch.zeros((), dtype=torch.int64)
        self.model = copy.deepcopy(model, {id(buffer): buffer for buffer in model.buffers()}).requires_grad_(False)
        table, kept = model.item.weight, self.model.item.weight
        self._rows = _Rows(table, kept, share) if sparse_items else None
        self._whole: list[tuple[nn.Parameter, nn.Parameter]] = [
            (old, new)
            for old, new in zip(self.model.parameters(), model.parameters(), strict=True)
            if not (sparse_items and new is table)
        ]

    @torch.no_grad()
    def before_step(self, rows: Tensor) -> None:
        """Catch up on the rows int64 ``[n]`` of the item table that the step will move."""
        if self._rows is not None and self.steps:
            self._rows.catch_up(rows, int(self.steps))

    @torch.no_grad()
    def after_step(self) -> None:
        self.steps += 1
        first = self.steps == 1
        for old, new in self._whole:
            old.copy_(new) if first else old.lerp_(new, 1 - self.share)
        if self._rows is not None and first:
            self._rows.start()

    @torch.no_grad()
    def settle(self) -> None:
        """Catch up on all rows, for the average to be looked at."""
        if self._rows is not None:
            self._rows.catch_up(slice(None), int(self.steps))

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor], steps: Tensor) -> None:
        """Go on from an average that was settled."""
        for name, kept in self.model.named_parameters():
            kept.copy_(weights[name])
        self.steps = steps.clone()
        if self._rows is not None:
            self._rows.upto.fill_(int(steps))


class _Rows:
    """A table's average ``kept``, of which row r counts the first ``upto[r]`` steps."""

    def __init__(self, table: Tensor, kept: Tensor, share: float) -> None:
        self.table, self.kept, self.share = table, kept, share
        self.upto = torch.zeros(len(table), dtype=torch.int32, device=table.device)

    def start(self) -> None:
        self.kept.copy_(self.table)
        self.upto.fill_(1)

    def catch_up(self, rows: Tensor | slice, steps: int) -> None:
        missed = (steps - self.upto[rows]).double()
        forgotten = (1 - self.share**missed).float().unsqueeze(1)  # [rows, 1]
        self.kept[rows] = self.kept[rows].lerp_(self.table[rows], forgotten)
        self.upto[rows] = steps
