"""A cycle of twelve items, which a small model learns in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import torch
import torch.distributed as distributed

from headwater.models import ModelSpec, build
from headwater.training import loop, snapshot, worker
from headwater.training.loop import Fitted
from headwater.training.readers import Batch
from headwater.training.settings import Settings
from headwater.training.snapshot import Snapshot

CPU = torch.device("cpu")


def batch(rows: int = 48, items: int = 12) -> Batch:
    """Rows of seven items each from a cycle of ``items`` items."""
    item = (np.arange(rows)[:, None] + np.arange(7)) % items + 1
    return {"item": item, "context": np.ones_like(item), "weight": np.ones(item.shape, np.float32)}


def train_single_rank_in_ddp(
    folder: Path, spec: ModelSpec, settings: Settings, batches: list[Batch], device: torch.device = CPU
) -> Fitted:
    """Train a single rank wrapped in DDP all the same: with gloo on a CPU, with NCCL on a GPU."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
    try:
        torch.manual_seed(1)
        model = build(spec).to(device)
        wrapped, group = worker.wrap_ddp(model, settings, 0, 1, device)
        data = loop.Data(lambda _: batches, torch.ones(spec.n_items + 1))
        return loop.fit(model, data, settings, group, folder / "run", wrapped=wrapped)
    finally:
        distributed.destroy_process_group()


def write_snapshot(folder: Path, files: int) -> Snapshot:
    """48 rows of the cycle, as a snapshot of ``files`` files."""
    folder.mkdir(parents=True)
    items = ((np.arange(48)[:, None] + np.arange(7)) % 12 + 1).astype(np.int32)
    entries = []
    for k in range(files):
        part = items[k::files]
        kinds = {
            "item": pa.int32(),
            "type": pa.int32(),
            "at": pa.int64(),
            "value": pa.float64(),
            "weight": pa.float32(),
        }
        table = pa.table(
            {
                name: pa.array((part if name == "item" else np.ones_like(part)).tolist(), pa.list_(kind))
                for name, kind in kinds.items()
            }
        )
        parquet.write_table(table, folder / f"rows-{k}.parquet")
        digest = snapshot.digest(folder / f"rows-{k}.parquet")
        entries.append({"path": f"rows-{k}.parquet", "rows": len(part), "sha256": digest})
    (folder / "manifest.json").write_text(json.dumps({"files": entries}))
    return Snapshot.open(folder)
