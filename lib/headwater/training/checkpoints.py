"""Checkpoints: plain tensors and one line of JSON in a safetensors file, written atomically.

The random generators are seeded with (seed, epoch, rank) at the start of each epoch, so a run resumed with its weights,
optimiser state and epoch gives the same result as an uninterrupted one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from headwater.errors import ModelError
from headwater.local import write_atomically
from headwater.training.snapshot import digest

KEEP = 2


def write(folder: Path, epoch: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write the checkpoint of an epoch and keep the newest ``KEEP``; safe against a power failure at any moment."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch-{epoch:05d}.safetensors"
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda file: save_file(content, file, {"state": json.dumps(state)}))
    recorded = digest(path)
    write_atomically(path.with_suffix(".sha256"), lambda file: file.write_text(recorded))
    for old in sorted(folder.glob("epoch-*.safetensors"))[:-KEEP]:
        old.with_suffix(".sha256").unlink(missing_ok=True)
        old.unlink()


def read_newest(folder: Path, fingerprint: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint with a valid digest, or None if none was finished: the digest is written last.

    Raises ModelError if the checkpoints belong to another configuration, or if all of them are damaged: training never silently
    starts over.
    """
    finished = sorted(folder.glob("epoch-*.sha256"), reverse=True)
    for recorded in finished:
        path = recorded.with_suffix(".safetensors")
        try:
            if recorded.read_text() != digest(path):
                continue
            with safe_open(path, "pt") as file:
                state = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError):
            continue
        if state["fingerprint"] != fingerprint:
            raise ModelError(f"checkpoint {path} belongs to another configuration; train without --resume")
        return tensors, state
    if finished:
        raise ModelError(f"all checkpoints in {folder} are damaged; train without --resume")
    return None


def part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one part of a checkpoint, without the prefix of its name."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An Adam optimiser's state as named tensors: ``optimizer.<parameter>.<name>``."""
    return {
        f"optimizer.{parameter}.{name}": torch.as_tensor(value)
        for parameter, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the state that ``optimizer_tensors`` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in part(tensors, "optimizer").items():
        parameter, name = key.split(".", 1)
        state.setdefault(int(parameter), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
