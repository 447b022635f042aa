"""The epoch loop: steps, clipping, validation, checkpoints. Knows of ranks only what ``Group`` tells it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from headwater.config import Loss
from headwater.errors import ModelError
from headwater.models import SequenceModel
from headwater.models.losses import Objective
from headwater.training import checkpoints
from headwater.training.readers import Batch


@dataclass(frozen=True)
class Group:
    """This process among the ranks; ``total`` adds a tensor up over all of them."""

    rank: int
    world: int
    total: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """Length and step of a training; ``fingerprint`` names everything that its result depends on."""

    epochs: int
    learning_rate: float
    loss: Loss
    weight_decay: float
    clip_norm: float
    average: float
    patience: int
    seed: int
    mixed_precision: bool
    fingerprint: str


@dataclass(frozen=True)
class Fitted:
    """``weights``: of the best epoch (the last one without validation); ``history``: one dict an epoch."""

    weights: dict[str, Tensor]
    best_epoch: int
    history: list[dict[str, float]]


def fit(
    model: SequenceModel,
    wrapped: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    validate: Callable[[SequenceModel], float] | None,
    settings: Settings,
    group: Group,
    device: torch.device,
    folder: Path,
    resume: bool,
    counts: Tensor,
    after_checkpoint: Callable[[], None] = lambda: None,
) -> Fitted:
    """Train until the last epoch, or until ``patience`` epochs brought no better validation NDCG@10.

    ``wrapped`` is the model, or the model inside DDP. ``counts`` ``[items + 1]``: how often each item is a target, for
    losses that draw negatives by it. With ``settings.average`` what is validated and kept is the moving average of the
    weights (Polyak and Juditsky, 1992), which forgets the noise of the last few steps. Raises ModelError, on all ranks
    together, when the loss is no longer finite. Checkpoints are written by rank 0 after each epoch; ``resume`` goes on
    from the newest.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=device.type == "cuda"
    )
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.average)) if settings.average else None
    judged: Any = model if averaged is None else averaged.module
    state: dict[str, Any] = {
        "fingerprint": settings.fingerprint,
        "epoch": 0,
        "best": -1.0,
        "best_epoch": 0,
        "history": [],
    }
    best = clone(judged)
    if resume and (found := checkpoints.read_newest(folder, settings.fingerprint)):
        tensors, state = found
        model.load_state_dict(checkpoints.part(tensors, "model"))
        best = checkpoints.part(tensors, "best")
        if averaged is not None:
            averaged.load_state_dict(checkpoints.part(tensors, "average"))
        checkpoints.load_optimizer(optimizer, tensors)
    after_step = (lambda: None) if averaged is None else (lambda: averaged.update_parameters(model))
    while state["epoch"] < settings.epochs and state["epoch"] - state["best_epoch"] < settings.patience:
        epoch, started = state["epoch"] + 1, time.monotonic()
        loss, rows = run_epoch(wrapped, optimizer, batches(epoch), settings, group, device, epoch, counts, after_step)
        entry = {"epoch": epoch, "loss": loss, "sequences": rows, "seconds": round(time.monotonic() - started, 3)}
        score = torch.zeros(1, dtype=torch.float64)
        if validate is not None:
            score += validate(judged) if group.rank == 0 else 0.0
            entry["epoch_ndcg_10"] = float(group.total(score.to(device)))
        state["epoch"] = epoch
        state["history"].append(entry)
        if validate is None or entry["epoch_ndcg_10"] > state["best"]:
            state["best"], state["best_epoch"] = entry.get("epoch_ndcg_10", -1.0), epoch
            best = clone(judged)
        if group.rank == 0:
            tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
            tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
            if averaged is not None:
                tensors |= {f"average.{name}": tensor for name, tensor in averaged.state_dict().items()}
            checkpoints.write(folder, epoch, tensors | checkpoints.optimizer_tensors(optimizer), state)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in entry.items() if name != "epoch")
            print(f"epoch {epoch}/{settings.epochs}: {shown}", flush=True)
            after_checkpoint()
    return Fitted(best, state["best_epoch"], state["history"])


def clone(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a model's weights, by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def run_epoch(
    wrapped: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    settings: Settings,
    group: Group,
    device: torch.device,
    epoch: int,
    counts: Tensor,
    after_step: Callable[[], None] = lambda: None,
) -> tuple[float, int]:
    """One pass; returns the mean loss of a target over all ranks, and the sequences seen."""
    torch.manual_seed(settings.seed * 1_000_003 + epoch * 1_009 + group.rank)
    objective = Objective(settings.loss, counts, torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch))
    wrapped.train()
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    for batch in batches:
        items, types, weights = (
            torch.from_numpy(batch[name]).to(device, non_blocking=True) for name in ("item", "type", "weight")
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.mixed_precision and device.type == "cuda"):
            loss, weight = wrapped(items, types, weights, objective)
        whole = group.total(torch.stack([loss.detach().double(), weight.double()]))
        if not math.isfinite(whole[0].item()):
            raise ModelError(f"the loss is no longer finite in epoch {epoch}; lower train.learning_rate")
        optimizer.zero_grad(set_to_none=True)
        # DDP averages the ranks' gradients; scaled so, the average is the gradient of the mean over all ranks' targets.
        (loss * group.world / whole[1].clamp(min=1e-6).float()).backward()
        # the gradient is the same on all ranks by now, so all of them stop here or none does
        if not math.isfinite(nn.utils.clip_grad_norm_(wrapped.parameters(), settings.clip_norm).item()):
            raise ModelError(f"the gradient is no longer finite in epoch {epoch}; lower train.learning_rate")
        optimizer.step()
        after_step()
        sums += torch.cat([whole, group.total(torch.tensor([len(items)], dtype=torch.float64, device=device))])
    if not sums[1].item():
        raise ModelError("no event to learn from has a weight as a target; see train.targets")
    return float(sums[0] / sums[1].clamp(min=1e-6)), int(sums[2])
