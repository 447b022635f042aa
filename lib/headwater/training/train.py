"""Run a training with Spark: TorchDistributor starts the ranks, on this machine or on executors, and returns rank 0's answer."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from headwater import local
from headwater.config import Targets, Train
from headwater.device import on_gpu
from headwater.errors import DivergenceError, HeadwaterError, ModelError
from headwater.models.spec import ModelSpec
from headwater.schemas import EVENT_TYPES
from headwater.training import readers, worker
from headwater.training.settings import Plan, Settings
from headwater.training.snapshot import Snapshot, digest
from headwater.training.validation import Cases


def plan(
    snapshot: Snapshot,
    spec: ModelSpec,
    train: Train,
    folder: Path,
    *,
    validation: Cases | None = None,
    initial_weights: Path | None = None,
    resume: bool = False,
) -> Plan:
    """The plan that every rank reads; ``folder`` holds checkpoints and weights.

    The snapshot holds all events, the plan their weights as targets (``train.targets``). Without ``resume`` the folder is
    emptied first. Raises ModelError if the snapshot's files cannot be shared out equally among ``train.processes``.
    """
    steps = readers.steps_per_epoch(snapshot.manifest["files"], train.batch_size, train.processes)
    settings = Settings.of(train, spec.n_items, steps)
    weighing = target_weights(train.targets)
    files = [entry["sha256"] for entry in snapshot.manifest["files"]]
    if len(files) % train.processes:
        raise ModelError(
            f"snapshot {snapshot.directory} has {len(files)} files, not a multiple of train.processes {train.processes}"
        )
    start = digest(initial_weights) if initial_weights else ""
    cases = hashlib.sha256()
    for name in validation.__dataclass_fields__ if validation is not None else ():
        array = getattr(validation, name)
        cases.update(array.tobytes() if name != "prior" else str(array.shape).encode())  # its last bits vary by machine
    inputs = settings.to_dict()
    del inputs["fingerprint"]
    identity = [inputs, spec.to_dict(), train.batch_size, train.processes, files, start, cases.hexdigest(), weighing]
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    cases_file = ""
    if validation is not None and len(validation):
        cases_file = str((folder / "validation.npz").resolve())
        validation.save(Path(cases_file))
    return Plan(
        snapshot=str(snapshot.directory.resolve()),
        spec=spec,
        settings=replace(settings, fingerprint=fingerprint),
        targets=weighing,
        batch_size=train.batch_size,
        reader=train.reader,
        folder=str(folder.resolve()),
        validation=cases_file,
        initial_weights=str(initial_weights) if initial_weights else "",
        resume=resume,
        use_gpu=uses_gpus(train),
        threads=max(1, local.cores() // train.processes) if train.local_mode else 0,
        timeout_seconds=train.timeout_seconds,
    )


def uses_gpus(train: Train) -> bool:
    """Whether the ranks compute on GPUs. Ranks on one machine need one each; with fewer, ``auto`` falls back to the CPU.

    Raises HeadwaterError if GPUs are required and there are too few.
    """
    wanted, available = train.use_gpu is True or on_gpu(train.use_gpu), torch.cuda.device_count()
    if not (wanted and train.local_mode) or available >= train.processes:
        return wanted
    if train.use_gpu == "auto":
        return False
    raise HeadwaterError(
        f"train.processes {train.processes} with train.use_gpu needs as many GPUs, but there are only {available}"
    )


def target_weights(targets: Targets) -> list[float]:
    """Target weights by a snapshot's event type codes, that of padding first; an impression has weight 0."""
    named = targets.model_dump()
    return [0.0, *(named.get(event_type, 0.0) for event_type in EVENT_TYPES)]


def run(planned: Plan, train: Train) -> dict[str, Any]:
    """Start the ranks and wait for them; returns rank 0's answer: weights (a file), best_epoch, history.

    Output of the ranks goes to standard error. Raises ModelError, with a message of one line, if any rank fails; DivergenceError
    if that was why.
    """
    worker.share_environment()
    if not train.local_mode:
        _need_slots(train.processes)
    if planned.threads:
        os.environ.setdefault("OMP_NUM_THREADS", str(planned.threads))
    if train.local_mode and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # Local ranks choose their GPUs themselves; only on executors does Spark assign GPUs to tasks.
    spark_gpus = planned.use_gpu and not train.local_mode
    distributor = TorchDistributor(num_processes=train.processes, local_mode=train.local_mode, use_gpu=spark_gpus)
    said = _RankOutput()
    try:
        with contextlib.redirect_stdout(said):
            answer = distributor.run(worker.PicklableWork(), planned.to_json())
    except Exception as error:
        text = "".join(said.lines) or str(error)
        kind = DivergenceError if f"{DivergenceError.__module__}.{DivergenceError.__name__}: " in text else ModelError
        raise kind(f"training failed: {_cause(text)}") from error
    assert answer is not None, "a function that ran returns an answer"
    return answer


def _need_slots(processes: int, patience: float = 30.0) -> None:
    """Check that the cluster has enough task slots: ranks on executors start all together or not at all, and Spark itself waits
    ten minutes before it reports that.

    Raises HeadwaterError if there are still too few after ``patience`` seconds, in which executors may start up.
    """
    context = SparkSession.builder.getOrCreate().sparkContext._jsc.sc()  # type: ignore[union-attr]
    profile = context.resourceProfileManager().defaultResourceProfile()
    until = time.monotonic() + patience
    while (slots := context.maxNumConcurrentTasks(profile)) < processes:
        if time.monotonic() > until:
            raise HeadwaterError(
                f"train.processes {processes} needs as many task slots on executors, but there are only {slots}"
            )
        time.sleep(0.5)


class _RankOutput(io.TextIOBase):
    """Passes the ranks' output to standard error and keeps the end of it: their errors are reported nowhere else."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=400)

    def write(self, text: str) -> int:
        self.lines.append(text)
        return sys.stderr.write(text)


def _cause(text: str) -> str:
    """The last line of a rank's traceback that names an error."""
    said = [re.sub(r"^\[rank\d+\]: ", "", line.strip()) for line in text.splitlines()]
    errors = [line for line in said if re.match(r"[\w.]+(Error|Exception): ", line) and "ChildFailedError" not in line]
    chosen = (errors or [line for line in said if line] or ["a rank exited without an error message"])[-1]
    return re.sub(r"^headwater\.errors\.\w+: ", "", chosen)
