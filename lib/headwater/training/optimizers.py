"""The effect of a step on the weights: gradient clipping, AdamW, a learning rate schedule.

With ``sparse_items`` the item table is updated by rows: its gradient is sparse and has only the rows that the step read, those
of its sequences and negatives. Only these rows and their moments are updated, so the cost of a step depends on its batch and not
on the number of items. Other rows stay unchanged, whereas AdamW would move them by their momentum and decay both moments and,
with weight decay, the row itself (lazy Adam). A step that reads all rows is the same as AdamW's. Rejected:
``torch.optim.SparseAdam``, which has no weight decay and whose step count does not survive a checkpoint unchanged.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from headwater.errors import DivergenceError
from headwater.models import SequenceModel
from headwater.training import checkpoints
from headwater.training.averages import ExponentialAverage
from headwater.training.settings import Group, Settings

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Adam's parameters, at torch's defaults."""


def learning_rate(settings: Settings, step: int) -> float:
    """The learning rate of a step, counted from 0 over all ``epochs`` × ``steps``: linear warm-up to ``learning_rate`` over the
    fraction ``warmup`` of them, then constant or half a cosine down to 0 (Loshchilov and Hutter, SGDR, 2017)."""
    steps = settings.epochs * settings.steps
    warm = round(settings.warmup * steps)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2


class Optimizer:
    """Everything that changes a model's weights. ``ema_model`` is the model to validate and keep: the moving average, or the
    model itself if ``settings.average`` is 0."""

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
            fused=True,
        )
        self.average = ExponentialAverage(model, settings.average, settings.sparse_items) if settings.average else None
        self.ema_model = model if self.average is None else self.average.model

    def zero_grad(self) -> None:
        """Reset the gradient."""
        self.adam.zero_grad(set_to_none=True)
        self.table.grad = None

    def scale(self, factor: float) -> None:
        """Multiply the gradient accumulated so far."""
        for each in self.whole if self.rows is None else (*self.whole, self.table):
            if each.grad is not None:
                each.grad.mul_(factor)

    def step(self, epoch: int, number: int) -> None:
        """Update the weights by the gradient, in step ``number`` (from 0) of an epoch. Raises DivergenceError, on all ranks
        together, if the gradient is not finite."""
        touched = self._touched() if self.rows is not None else None
        gradients = [each.grad for each in self.whole if each.grad is not None]
        norm = nn.utils.get_total_norm(gradients if touched is None else [*gradients, touched[1]])
        # the gradient is the same on all ranks by now, so all of them stop here or none does
        length = norm.item()
        if not math.isfinite(length):
            raise DivergenceError(f"the gradient is no longer finite in epoch {epoch}; lower train.learning_rate")
        if length > self.settings.clip_norm:
            nn.utils.clip_grads_with_norm_(self.whole, self.settings.clip_norm, norm)
        rate = learning_rate(self.settings, (epoch - 1) * self.settings.steps + number)
        for options in self.adam.param_groups:
            options["lr"] = rate
        if self.rows is not None and touched is not None:
            rows, row_gradients = touched
            row_gradients.mul_((self.settings.clip_norm / (norm + 1e-6)).clamp(max=1.0))
            if self.average is not None:
                self.average.before_step(rows)
            self.rows.step(rows, row_gradients, rate)
        self.adam.step()
        if self.average is not None:
            self.average.after_step()

    def _touched(self) -> tuple[Tensor, Tensor]:
        """Rows of the item table that any rank read, int64 ``[n]`` ascending, and the mean of the ranks' gradients ``[n, dim]``."""
        assert self.table.grad is not None, "every batch reads items"
        found = self.table.grad.coalesce()
        if self.group.world > 1:
            rows, gradients = self.group.gather(found.indices()[0]), self.group.gather(found.values())
            found = torch.sparse_coo_tensor(rows.unsqueeze(0), gradients / self.group.world, found.shape).coalesce()
        return found.indices()[0], found.values()

    def settle(self) -> None:
        """Bring ``ema_model`` up to date with the steps so far."""
        if self.average is not None:
            self.average.settle()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed training needs besides the model, by name."""
        found = checkpoints.optimizer_tensors(self.adam)
        if self.rows is not None:
            found |= {"rows.mean": self.rows.mean, "rows.square": self.rows.square, "rows.steps": self.rows.steps}
        if self.average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self.average.model.named_parameters()}
            found["averaged.steps"] = self.average.steps
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state that ``tensors`` returned."""
        checkpoints.load_optimizer(self.adam, tensors)
        if self.rows is not None:
            for name, tensor in checkpoints.part(tensors, "rows").items():
                getattr(self.rows, name).copy_(tensor)
        if self.average is not None:
            self.average.load(checkpoints.part(tensors, "average"), tensors["averaged.steps"])


class RowAdam:
    """AdamW for some rows of a table at a time; the moments' bias correction uses the number of steps of the whole table."""

    def __init__(self, table: Tensor, weight_decay: float) -> None:
        self.table, self.weight_decay = table, weight_decay
        self.mean, self.square = torch.zeros_like(table), torch.zeros_like(table)
        self.steps = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def step(self, rows: Tensor, gradients: Tensor, rate: float) -> None:
        """Update the distinct ``rows`` int64 ``[n]`` by ``gradients`` ``[n, dim]``."""
        self.steps += 1
        correction, correction_square = (1 - beta ** int(self.steps) for beta in BETAS)
        mean = self.mean[rows].lerp_(gradients, 1 - BETAS[0])
        square = self.square[rows].mul_(BETAS[1]).addcmul_(gradients, gradients, value=1 - BETAS[1])
        self.mean[rows], self.square[rows] = mean, square
        deviation = square.sqrt_().div_(math.sqrt(correction_square)).add_(EPSILON)
        moved = self.table[rows].mul_(1 - rate * self.weight_decay)
        self.table[rows] = moved.addcdiv_(mean, deviation, value=-rate / correction)
