"""The work of one rank: wrap a model, which knows nothing of distribution, in DDP, train it, write its weights to a file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import headwater
from headwater import models
from headwater.models import SequenceModel
from headwater.tables.failpoints import failpoint
from headwater.training import loop, readers
from headwater.training.settings import Group, Plan, Settings
from headwater.training.snapshot import Snapshot
from headwater.training.validation import Cases, mean_ndcg


class PicklableWork:
    """``work`` in a form that executors can unpickle: unpickling lets the ranks started there import this package.

    Spark puts ``--py-files`` on the path of its own Python workers only; a rank is a child process of one of these.
    """

    def __call__(self, plan_json: str) -> dict[str, Any]:
        return work(plan_json)

    def __reduce__(self) -> tuple[Callable[[], PicklableWork], tuple[()]]:
        return unpickle, ()


def unpickle() -> PicklableWork:
    """Prepare the environment of the process that unpickles ``PicklableWork``, and return one."""
    share_environment()
    return PicklableWork()


def share_environment() -> None:
    """Let child processes import this package and print any character."""
    package = str(Path(headwater.__file__).resolve().parent.parent)
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    os.environ["PYTHONIOENCODING"] = "utf-8:backslashreplace"


def work(plan_json: str) -> dict[str, Any]:
    """Train by a plan (see ``train.plan``); the driver gets rank 0's answer: file of the weights, history, best epoch."""
    _die_with_parent()
    plan = Plan.from_json(plan_json)
    rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    gpu = plan.use_gpu
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    elif plan.threads:
        torch.set_num_threads(plan.threads)
    limit = timedelta(seconds=plan.timeout_seconds)
    distributed.init_process_group("nccl" if gpu else "gloo", timeout=limit)
    try:
        return _train(plan, rank, world, device)
    finally:
        distributed.destroy_process_group()


def _train(plan: Plan, rank: int, world: int, device: torch.device) -> dict[str, Any]:
    torch.manual_seed(plan.settings.seed)
    model = models.build(plan.spec)
    if plan.initial_weights:
        model.load_state_dict(load_file(plan.initial_weights))
    model.to(device)
    settings = plan.settings
    # a single rank needs no all-reduce and no DDP
    wrapped, group = wrap_ddp(model, settings, rank, world, device) if world > 1 else (model, Group.of_one(device))
    snapshot = Snapshot.open(Path(plan.snapshot))
    read = readers.cached(readers.checked_reader(plan.reader, plan.targets, model.spec.n_items), snapshot.files)
    rows = max(1, plan.batch_size // world)

    counts = torch.zeros(model.spec.n_items + 1)
    if settings.loss.kind != "softmax" and settings.loss.source != "uniform":
        own = readers.target_counts(snapshot.files[rank::world], read, model.spec.n_items)
        counts = group.total(torch.from_numpy(own).to(device)).cpu()

    validate = None
    if plan.validation:
        validate = partial(mean_ndcg, cases=Cases.load(Path(plan.validation)), device=device)
    data = loop.Data(
        batches=lambda number: readers.epoch(snapshot.files, read, rows, settings.seed, number, rank, world),
        target_counts=counts,
        validate=validate,
    )
    folder = Path(plan.folder)
    fitted = loop.fit(
        model,
        data,
        settings,
        group,
        folder / "checkpoints",
        wrapped=wrapped,
        resume=plan.resume,
        after_checkpoint=lambda: failpoint("train_model:after_checkpoint"),
    )
    weights = folder / "weights.safetensors"
    if rank == 0:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in fitted.weights.items()}, weights)
    distributed.barrier()
    return {"weights": str(weights), "best_epoch": fitted.best_epoch, "history": fitted.history}


def wrap_ddp(
    model: SequenceModel, settings: Settings, rank: int, world: int, device: torch.device
) -> tuple[nn.Module, Group]:
    """The model inside DDP, and this process as a rank of the process group that it has joined.

    DDP ignores an item table with a sparse gradient, because NCCL cannot all-reduce sparse tensors; the optimiser gathers that
    gradient through ``Group``.
    """
    if settings.sparse_items:
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ["item.weight"])
    gpus = [device.index] if device.type == "cuda" else None
    wrapped = DistributedDataParallel(model, device_ids=gpus, broadcast_buffers=False, gradient_as_bucket_view=True)

    def total(tensor: torch.Tensor) -> torch.Tensor:
        summed = tensor.clone()
        distributed.all_reduce(summed)
        return summed

    def gather(tensor: torch.Tensor) -> torch.Tensor:
        lengths = torch.zeros(world, dtype=torch.int64, device=device)
        lengths[rank] = len(tensor)
        rows = total(lengths).tolist()
        padded = tensor.new_zeros((max(rows), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        found = [torch.empty_like(padded) for _ in rows]
        distributed.all_gather(found, padded)
        return torch.cat([part[:length] for part, length in zip(found, rows, strict=True)])

    return wrapped, Group(rank, world, total, gather, wrapped.no_sync, device)


def _die_with_parent() -> None:
    """Ask the kernel to kill this rank when its launcher dies, so that a killed job leaves no rank behind (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
