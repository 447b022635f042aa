"""The epoch loop: steps, validation, checkpoints. It deals with ranks only through ``Group``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headwater.errors import DivergenceError, ModelError
from headwater.models import SequenceModel
from headwater.models.losses import Objective
from headwater.training import checkpoints, prefetch
from headwater.training.optimizers import Optimizer
from headwater.training.readers import Batch
from headwater.training.settings import Group, Settings

REPORT_SECONDS = 30.0
"""Seconds between two reports of rank 0 within an epoch."""


@dataclass(frozen=True)
class Fitted:
    """``weights``: of the best epoch, or of the last one without validation; ``history``: one dict per epoch."""

    weights: dict[str, Tensor]
    best_epoch: int
    history: list[dict[str, float]]


@dataclass(frozen=True)
class Data:
    """The data of a training and of its validation.

    ``batches``: this rank's batches of an epoch, counted from 1; ``target_counts`` ``[items + 1]``: how often each item is a
    target, for losses that sample negatives by it; ``validate``: the NDCG@10 of a model, computed on rank 0 alone.
    """

    batches: Callable[[int], Iterable[Batch]]
    target_counts: Tensor
    validate: Callable[[SequenceModel], float] | None = None


def fit(
    model: SequenceModel,
    data: Data,
    settings: Settings,
    group: Group,
    folder: Path,
    *,
    wrapped: nn.Module | None = None,
    resume: bool = False,
    after_checkpoint: Callable[[], None] = lambda: None,
) -> Fitted:
    """Train until the last epoch, or until ``patience`` epochs bring no better validation NDCG@10.

    ``wrapped``: the model inside DDP, if there are several ranks. With ``settings.average`` the moving average of the weights is
    validated and kept (Polyak and Juditsky, 1992). Rank 0 writes a checkpoint to ``folder`` after each epoch; ``resume``
    continues from the newest one. Raises, on all ranks together, DivergenceError if the loss or the gradient is no longer
    finite, and ModelError if no target has a weight.
    """
    wrapped = model if wrapped is None else wrapped
    optimizer = Optimizer(model, settings, group)
    state: dict[str, Any] = {
        "fingerprint": settings.fingerprint,
        "epoch": 0,
        "best": -1.0,
        "best_epoch": 0,
        "history": [],
    }
    best: dict[str, Tensor] = {}
    if group.rank == 0:
        work = f"{settings.epochs} epochs of {settings.steps} steps"
        print(f"at most {work}: {settings.loss.kind} over {model.spec.n_items} items, on {group.device}", flush=True)
    if resume and (found := checkpoints.read_newest(folder, settings.fingerprint)):
        tensors, state = found
        model.load_state_dict(checkpoints.part(tensors, "model"))
        optimizer.load(tensors)
        best = checkpoints.part(tensors, "best")
        del found, tensors  # so that a table of a million items is not held twice
    while state["epoch"] < settings.epochs and state["epoch"] - state["best_epoch"] < settings.patience:
        epoch, started = state["epoch"] + 1, time.monotonic()
        loss, rows = run_epoch(wrapped, optimizer, data, epoch)
        optimizer.settle()
        entry = {"epoch": epoch, "loss": loss, "sequences": rows, "seconds": round(time.monotonic() - started, 3)}
        score = torch.zeros(1, dtype=torch.float64)
        if data.validate is not None:
            score += data.validate(optimizer.ema_model) if group.rank == 0 else 0.0
            entry["epoch_ndcg_10"] = float(group.total(score.to(group.device)))
        state["epoch"] = epoch
        state["history"].append(entry)
        if data.validate is None or entry["epoch_ndcg_10"] > state["best"]:
            state["best"], state["best_epoch"] = entry.get("epoch_ndcg_10", -1.0), epoch
            copy_weights(best, optimizer.ema_model)
        if group.rank == 0:
            tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
            tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
            checkpoints.write(folder, epoch, tensors | optimizer.tensors(), state)
            shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in entry.items()}
            metrics = ", ".join(f"{name} {value}" for name, value in shown.items() if name != "epoch")
            print(f"epoch {epoch}/{settings.epochs}: {metrics}", flush=True)
            after_checkpoint()
    return Fitted(best, state["best_epoch"], state["history"])


def copy_weights(kept: dict[str, Tensor], model: nn.Module) -> None:
    """Copy a model's weights, by name, over those kept before."""
    for name, tensor in model.state_dict().items():
        kept[name] = kept[name].copy_(tensor) if name in kept else tensor.detach().clone()


def run_epoch(wrapped: nn.Module, optimizer: Optimizer, data: Data, epoch: int) -> tuple[float, int]:
    """One pass over the data; returns the mean loss per target and the number of sequences, both over all ranks."""
    settings, group = optimizer.settings, optimizer.group
    torch.manual_seed(settings.seed * 1_000_003 + epoch * 1_009 + group.rank)
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    objective = Objective(settings.loss, data.target_counts.to(group.device), generator)
    wrapped.train()
    sums = torch.zeros(3, dtype=torch.float64, device=group.device)
    started = reported = time.monotonic()
    with prefetch.prefetched(data.batches(epoch), pinned=group.device.type == "cuda") as ready:
        for number, batch in enumerate(ready):
            optimizer.zero_grad()
            step = torch.zeros(2, dtype=torch.float64, device=group.device)
            for place, part in enumerate(prefetch.parts(batch, settings.accumulate)):
                last = place == settings.accumulate - 1
                with nullcontext() if last else group.no_sync():
                    loss, whole = part_loss(wrapped, part, objective, settings, group)
                    if not math.isfinite(whole[0].item()):
                        raise DivergenceError(
                            f"the loss is no longer finite in epoch {epoch}; lower train.learning_rate"
                        )
                    before, step = step, step + whole
                    weights_so_far = step[1].clamp(min=1e-6)
                    if place:
                        optimizer.scale((before[1] / weights_so_far).item())
                    # DDP averages the gradients of the ranks. Scaled like this, the result is the gradient of the mean loss
                    # over the targets of all ranks, in all parts so far.
                    gradient_scale = 1 / weights_so_far.float() * group.world
                    (loss * gradient_scale).backward()
            optimizer.step(epoch, number)
            sums[:2] += step
            sums[2] += len(batch["item"])
            if group.rank == 0 and time.monotonic() - reported >= REPORT_SECONDS:
                reported = time.monotonic()
                report(f"epoch {epoch}", number + 1, settings.steps, sums, reported - started)
    sums[2] = group.total(sums[2:])[0]
    if not sums[1].item():
        raise ModelError("every training target has weight 0; see train.targets")
    return float(sums[0] / sums[1].clamp(min=1e-6)), int(sums[2])


def report(name: str, done: int, steps: int, sums: Tensor, seconds: float) -> None:
    """Print how far an epoch has come after ``done`` of its ``steps``; ``sums``: of losses and of weights so far."""
    if done < steps:
        loss, left = float(sums[0] / sums[1].clamp(min=1e-6)), seconds / done * (steps - done)
        print(f"{name}: {done} of {steps} steps, loss {loss:.4g}, {left:.0f} s left", flush=True)


def part_loss(
    wrapped: nn.Module,
    part: dict[str, Tensor],
    objective: Objective,
    settings: Settings,
    group: Group,
) -> tuple[Tensor, Tensor]:
    """This rank's weighted sum of losses, and, float64 ``[2]``, that sum and the sum of weights over all ranks."""
    items, context, weights = (part[name].to(group.device, non_blocking=True) for name in ("item", "context", "weight"))
    reduced = settings.mixed_precision and group.device.type == "cuda"
    with torch.autocast(group.device.type, torch.bfloat16, enabled=reduced):
        loss, weight = wrapped(items, context, weights, objective)
    return loss, group.total(torch.stack([loss.detach().double(), weight.double()]))
