"""A model as a folder of plain tensors and JSON; opening it executes nothing from the folder.

weights.safetensors      the model's tensors
trained.safetensors      the items that the training had events of; absent where item features describe the others
transitions.safetensors  hybrids only: neighbours as a CSR matrix with their parameters; ease, als and repeats likewise
spec.json                shape of the model and facts of its training
manifest.sha256          digest of each file
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch import Tensor

from headwater import models
from headwater.errors import ModelError
from headwater.models.neighbours import Neighbours
from headwater.models.ranker import Ranker
from headwater.models.spec import ModelSpec
from headwater.text import first_line
from headwater.training.snapshot import digest

WEIGHTS, TRAINED, SPEC, MANIFEST = "weights.safetensors", "trained.safetensors", "spec.json", "manifest.sha256"
NEIGHBOURS = {name: f"{name}.safetensors" for name in ("transitions", "ease", "als", "repeats")}
NEIGHBOUR_PARAMETERS = ("window", "decay", "most", "half_life")
"""The parameters of neighbours; a version saved before ``most`` or ``half_life`` existed gets its default."""


def save(
    folder: Path,
    weights: dict[str, Tensor],
    spec: ModelSpec,
    facts: dict[str, Any],
    neighbours: Mapping[str, Neighbours] | None = None,
    trained: np.ndarray | None = None,
) -> None:
    """Write a model folder; ``facts`` must be plain JSON. ``trained``: see ``Ranker``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / WEIGHTS, weights)
    if trained is not None:
        save_arrays({"trained": trained}, folder / TRAINED)
    for name, part in (neighbours or {}).items():
        matrix = part.matrix
        arrays = {"indptr": matrix.indptr, "indices": matrix.indices, "data": matrix.data}
        arrays |= {key: np.array(getattr(part, key)) for key in NEIGHBOUR_PARAMETERS}
        save_arrays({key: np.ascontiguousarray(array) for key, array in arrays.items()}, folder / NEIGHBOURS[name])
    (folder / SPEC).write_text(json.dumps({"spec": spec.to_dict(), "facts": facts}, indent=1, default=str))
    names = [name for name in (WEIGHTS, TRAINED, *NEIGHBOURS.values(), SPEC) if (folder / name).exists()]
    (folder / MANIFEST).write_text("".join(f"{digest(folder / name)}  {name}\n" for name in names))


@torch.inference_mode()
def smoke_test(folder: Path) -> None:
    """Open a model as scoring does, and score all items for one history.

    Raises ModelError if that fails or a score is not finite: nothing else has checked the weights after a training's last step.
    """
    model, _ = load(folder)
    spec = model.spec
    history = torch.arange(max(1, spec.n_items - spec.max_length + 1), spec.n_items + 1).unsqueeze(0)
    scores = model.item_matrix()[1 : spec.n_items + 1] @ model.user_vectors(history, history.clamp(max=1))[0]
    if not torch.isfinite(scores).all():
        raise ModelError("the scores of the trained model are not finite; lower train.learning_rate")


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write tensors only, as the initial weights for the ranks of a training."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors that a training wrote."""
    return dict(load_file(path))


def verify(folder: Path) -> None:
    """Check a folder against its manifest; raises ModelError naming the file that is missing or differs from its digest."""
    if not (folder / MANIFEST).is_file():
        raise ModelError(f"model {folder} has no {MANIFEST}")
    lines = (line.partition("  ") for line in (folder / MANIFEST).read_text().splitlines())
    listed = {name: expected for expected, _, name in lines}
    if not {WEIGHTS, SPEC} <= set(listed) <= {WEIGHTS, TRAINED, *NEIGHBOURS.values(), SPEC}:
        raise ModelError(
            f"model {folder}: {MANIFEST} lists unexpected files, or lacks required ones: {sorted(listed)}; use another version"
        )
    for name, expected in listed.items():
        if not (folder / name).is_file() or digest(folder / name) != expected:
            raise ModelError(f"model file {folder / name} is missing or damaged (its SHA-256 is not the recorded one)")


def load(folder: Path) -> tuple[models.SequenceModel, dict[str, Any]]:
    """The model, in evaluation mode on the CPU, and the facts of its training.

    Its tensors are memory-mapped, so processes that open the same file share one copy in memory.

    Raises ModelError for a wrong digest, a spec that does not fit, tensors of another name or shape, or values that are not
    finite.
    """
    verify(folder)
    try:
        stored = json.loads((folder / SPEC).read_text())
        weights = load_file(folder / WEIGHTS)
        model = models.restore(ModelSpec(**stored["spec"]), weights)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(f"model {folder} cannot be opened: {first_line(error)}") from None
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"model {folder}: tensor {name} holds values that are not finite; use another version")
    return model, stored["facts"]


def ranker(folder: Path) -> Ranker:
    """A model folder opened for ranking; raises ModelError if it is damaged."""
    model, known = load(folder)
    return Ranker(model, known, load_neighbours(folder), trained_items(folder))


def facts(folder: Path) -> dict[str, Any]:
    """The facts of a model's training, from a verified folder."""
    return dict(json.loads((folder / SPEC).read_text())["facts"])


def trained_items(folder: Path) -> np.ndarray:
    """The items that a verified model was trained on (``Ranker.trained``): all, if it does not say."""
    if (folder / TRAINED).exists():
        return load_arrays(folder / TRAINED)["trained"]
    return np.ones(json.loads((folder / SPEC).read_text())["spec"]["n_items"] + 1, dtype=bool)


def load_neighbours(folder: Path) -> dict[str, Neighbours]:
    """The neighbours of a verified hybrid, by name; empty for a model that is not a hybrid."""
    found = {}
    for name, file in NEIGHBOURS.items():
        if (folder / file).exists():
            arrays = load_arrays(folder / file)
            size = len(arrays["indptr"]) - 1
            cells = (arrays["data"], arrays["indices"], arrays["indptr"])
            matrix = sparse.csr_matrix(cells, shape=(size, size))
            found[name] = Neighbours(
                matrix, **{key: arrays[key].item() for key in NEIGHBOUR_PARAMETERS if key in arrays}
            )
    return found
