"""The exponential moving average (EMA) of a model's weights over the steps, which smooths the noise of the last few.

``torch.optim.swa_utils.AveragedModel`` does the same for whole tensors; it cannot update only some rows of a table.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from headwater.models import SequenceModel


class ExponentialAverage:
    """``model`` holds the average: the weights after the first step, then ``decay`` × average + (1 - ``decay``) × weights after
    each further one.

    If a step updates only some rows of the item table, the averages of the other rows are updated lazily, before they are
    needed: over k steps in which the weights w do not change, an average a becomes decay^k a + (1 - decay^k) w.
    """

    def __init__(self, model: SequenceModel, decay: float, sparse_items: bool) -> None:
        self.decay = decay
        self.steps = torch.zeros((), dtype=torch.int64)
        self.model = copy.deepcopy(model, {id(buffer): buffer for buffer in model.buffers()}).requires_grad_(False)
        table, kept = model.item.weight, self.model.item.weight
        self._rows = _Rows(table, kept, decay) if sparse_items else None
        self._whole: list[tuple[nn.Parameter, nn.Parameter]] = [
            (old, new)
            for old, new in zip(self.model.parameters(), model.parameters(), strict=True)
            if not (sparse_items and new is table)
        ]

    @torch.no_grad()
    def before_step(self, rows: Tensor) -> None:
        """Bring the averages of the item table's ``rows`` int64 ``[n]``, which the step will change, up to date."""
        if self._rows is not None and self.steps:
            self._rows.catch_up(rows, int(self.steps))

    @torch.no_grad()
    def after_step(self) -> None:
        self.steps += 1
        first = self.steps == 1
        for old, new in self._whole:
            old.copy_(new) if first else old.lerp_(new, 1 - self.decay)
        if self._rows is not None and first:
            self._rows.start()

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all rows up to date, before the average is read."""
        if self._rows is not None:
            self._rows.catch_up(slice(None), int(self.steps))

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor], steps: Tensor) -> None:
        """Continue from a stored average, which was settled."""
        for name, kept in self.model.named_parameters():
            kept.copy_(weights[name])
        self.steps = steps.clone()
        if self._rows is not None:
            self._rows.upto.fill_(int(steps))


class _Rows:
    """The average ``kept`` of a table; row r includes the first ``upto[r]`` steps."""

    def __init__(self, table: Tensor, kept: Tensor, decay: float) -> None:
        self.table, self.kept, self.decay = table, kept, decay
        self.upto = torch.zeros(len(table), dtype=torch.int32, device=table.device)

    def start(self) -> None:
        self.kept.copy_(self.table)
        self.upto.fill_(1)

    def catch_up(self, rows: Tensor | slice, steps: int) -> None:
        missed = (steps - self.upto[rows]).double()
        weight = (1 - self.decay**missed).float().unsqueeze(1)  # [rows, 1]
        self.kept[rows] = self.kept[rows].lerp_(self.table[rows], weight)
        self.upto[rows] = steps
