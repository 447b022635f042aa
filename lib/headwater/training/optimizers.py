"""What a step does to the weights: a clipped gradient, AdamW, a learning rate that may change over the steps.

With ``sparse_items`` the item table is moved by rows: its gradient names the rows that the step read, those of its
sequences and of its negatives, and only these are clipped, moved and remembered, so that a step costs what its batch
costs, however many items there are. Rows that a step did not read stay where they are, where AdamW would carry them on by
their momentum and let both moments and, with weight decay, the row itself fade (lazy Adam); a step that reads all rows
is the same step. Rejected: ``torch.optim.SparseAdam``, which has no weight decay and whose count of steps does not come
back from a checkpoint as it was.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from headwater.errors import ModelError
from headwater.models import SequenceModel
from headwater.training import checkpoints
from headwater.training.averages import Average
from headwater.training.settings import Group, Settings

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam, and torch's own."""


def learning_rate(settings: Settings, step: int) -> float:
    """That of a step, counted from 0 over all ``epochs`` × ``steps``: a line up to ``learning_rate`` over the share
    ``warmup`` of them, then constant, or half a cosine down to 0 (Loshchilov and Hutter, SGDR, 2017)."""
    steps = settings.epochs * settings.steps
    warm = round(settings.warmup * steps)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2


class Optimizer:
    """All that changes a model's weights. ``judged`` is what to validate and keep: the model, or its moving average."""

    def __init__(self, model: SequenceModel, settings: Settings, group: Group) -> None:
        self.settings, self.group = settings, group
        self.table = model.item.weight
        model.item.sparse = settings.sparse_items
        self.rows = RowAdam(self.table, settings.weight_decay) if settings.sparse_items else None
        self.whole = [each for each in model.parameters() if self.rows is None or each is not self.table]
        self.adam = torch.optim.AdamW(
            self.whole,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=BETAS,
            eps=EPSILON,
            fused=group.device.type == "cuda",
        )
        self.average = Average(model, settings.average, settings.sparse_items) if settings.average else None
        self.judged = model if self.average is None else self.average.model

    def forget(self) -> None:
        """Start a new gradient."""
        self.adam.zero_grad(set_to_none=True)
        self.table.grad = None

    def scale(self, factor: float) -> None:
        """Multiply the gradient that has been gathered so far."""
        for each in self.whole if self.rows is None else (*self.whole, self.table):
            if each.grad is not None:
                each.grad.mul_(factor)

    def step(self, epoch: int, number: int) -> None:
        """Move the weights along the gradient, in an epoch's step ``number`` (from 0). Raises ModelError, on all ranks
        together, where the gradient is not finite."""
        touched = self._touched() if self.rows is not None else None
        gradients = [each.grad for each in self.whole if each.grad is not None]
        norm = nn.utils.get_total_norm(gradients if touched is None else [*gradients, touched[1]])
        # the gradient is the same on all ranks by now, so all of them stop here or none does
        if not math.isfinite(norm.item()):
            raise ModelError(f"the gradient is no longer finite in epoch {epoch}; lower train.learning_rate")
        nn.utils.clip_grads_with_norm_(self.whole, self.settings.clip_norm, norm)
        rate = learning_rate(self.settings, (epoch - 1) * self.settings.steps + number)
        for options in self.adam.param_groups:
            options["lr"] = rate
        if self.rows is not None and touched is not None:
            rows, slopes = touched
            slopes.mul_((self.settings.clip_norm / (norm + 1e-6)).clamp(max=1.0))
            if self.average is not None:
                self.average.before_step(rows)
            self.rows.step(rows, slopes, rate)
        self.adam.step()
        if self.average is not None:
            self.average.after_step()

    def _touched(self) -> tuple[Tensor, Tensor]:
        """Rows of the item table that any rank read, int64 ``[n]`` ascending, and the mean of the ranks' slopes ``[n, dim]``."""
        assert self.table.grad is not None, "every batch reads items"
        found = self.table.grad.coalesce()
        if self.group.world > 1:
            rows, slopes = self.group.gather(found.indices()[0]), self.group.gather(found.values())
            found = torch.sparse_coo_tensor(rows.unsqueeze(0), slopes / self.group.world, found.shape).coalesce()
        return found.indices()[0], found.values()

    def settle(self) -> None:
        """Make ``judged`` what it is after the steps so far."""
        if self.average is not None:
            self.average.settle()

    def tensors(self) -> dict[str, Tensor]:
        """All that a resumed training needs beside the model, by name."""
        found = checkpoints.optimizer_tensors(self.adam)
        if self.rows is not None:
            found |= {"rows.mean": self.rows.mean, "rows.square": self.rows.square, "rows.steps": self.rows.steps}
        if self.average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self.average.model.named_parameters()}
            found["averaged.steps"] = self.average.steps
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``tensors`` gave."""
        checkpoints.load_optimizer(self.adam, tensors)
        if self.rows is not None:
            for name, tensor in checkpoints.part(tensors, "rows").items():
                getattr(self.rows, name).copy_(tensor)
        if self.average is not None:
            self.average.load(checkpoints.part(tensors, "average"), tensors["averaged.steps"])


class RowAdam:
    """AdamW of one table, a few rows at a time; the bias of the moments is corrected by the steps of the whole."""

    def __init__(self, table: Tensor, weight_decay: float) -> None:
        self.table, self.weight_decay = table, weight_decay
        self.mean, self.square = torch.zeros_like(table), torch.zeros_like(table)
        self.steps = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def step(self, rows: Tensor, slopes: Tensor, rate: float) -> None:
        """Move ``rows`` int64 ``[n]``, no two the same, by ``slopes`` ``[n, dim]``."""
        self.steps += 1
        fade, fade_square = (1 - beta ** int(self.steps) for beta in BETAS)
        mean = self.mean[rows].lerp_(slopes, 1 - BETAS[0])
        square = self.square[rows].mul_(BETAS[1]).addcmul_(slopes, slopes, value=1 - BETAS[1])
        self.mean[rows], self.square[rows] = mean, square
        spread = square.sqrt_().div_(math.sqrt(fade_square)).add_(EPSILON)
        moved = self.table[rows].mul_(1 - rate * self.weight_decay)
        self.table[rows] = moved.addcdiv_(mean, spread, value=-rate / fade)
