"""A cycle of twelve items, what a small training learns in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from headwater.training import snapshot
from headwater.training.snapshot import Snapshot


def write_snapshot(folder: Path, files: int) -> Snapshot:
    """48 rows of the cycle, as a snapshot with so many files."""
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
