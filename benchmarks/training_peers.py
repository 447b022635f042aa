"""Train one peer's SASRec for some CPU seconds; started by `benchmarks/training.py` in the peers' own environment.

    .venv-peers-training/bin/python benchmarks/training_peers.py "RePlay, sampled" FOLDER SETTINGS

FOLDER holds ``sequences.npz`` (``item``, ``start``, ``n_items``). SETTINGS is JSON: seconds, every, threads, seed, length,
dim, layers, heads, dropout, batch. Every ``every`` CPU seconds of training, and at the end, the newest states of all users and
the vectors of all items are written to a file, which a line of JSON names; the caller evaluates it. Writing is not counted.
"""

from __future__ import annotations

import json
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from watch import Watch

Vectors = tuple[torch.Tensor, torch.Tensor]


class EvaluationCallback:
    """A callback for either Lightning package. ``vectors`` returns the module's current user and item vectors; ``real`` masks the
    events of a batch that are not padding."""

    vectors: Any
    folder: Path
    settings: dict[str, Any]
    real: Any

    watch: Watch | None = None
    sequences = events = count = 0

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        if self.watch is None:  # the first batch is not counted: packages import others on first use
            self.watch, self.next = Watch(), self.settings["every"]
            return
        real = self.real(batch)
        self.sequences += len(real)
        self.events += int(real.sum())
        over = self.watch.cpu >= self.settings["seconds"]
        if over or self.watch.cpu >= self.next:
            elapsed = {"wall": self.watch.wall, "cpu": self.watch.cpu}
            with self.watch.paused():
                self.write_vectors(module, elapsed)
            self.next = self.watch.cpu + self.settings["every"]
        trainer.should_stop = trainer.should_stop or over

    def write_vectors(self, module: Any, elapsed: dict[str, float]) -> None:
        self.count += 1
        path = self.folder / f"vectors-{self.count}.npz"
        module.eval()
        with torch.no_grad():
            users, items = self.vectors(module)
        module.train()
        np.savez(path, users=users.numpy(), items=items.numpy())
        line = elapsed | {"sequences": self.sequences, "events": self.events, "vectors": str(path)}
        print(json.dumps(line), flush=True)


def callback(base: type, **members: Any) -> Any:
    return type(
        "Callback", (EvaluationCallback, base), {k: staticmethod(v) if callable(v) else v for k, v in members.items()}
    )()


def trainer(lightning: Any, evaluation: Any) -> Any:
    return lightning.Trainer(
        max_epochs=10_000,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[evaluation],
    )


def rectools(
    folder: Path, settings: dict[str, Any], item: np.ndarray, start: np.ndarray, n_items: int, **more: Any
) -> None:
    """RecTools' SASRec. ``more``: arguments of SASRecModel; those not given here keep their defaults."""
    import pandas as pd
    import pytorch_lightning
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    def vectors(module: Any) -> Vectors:
        known = module.data_preparator.item_id_map.get_external_sorted_by_internal()  # PAD, then items
        place = np.zeros(n_items + 1, dtype=np.int64)
        place[known[1:].astype(np.int64)] = np.arange(1, len(known))
        table = module.torch_model.item_model.get_all_embeddings()
        items = torch.full((n_items + 1, table.shape[1]), torch.nan)
        items[torch.from_numpy(place > 0)] = table[1:][torch.from_numpy(place[place > 0] - 1)]
        rows = torch.from_numpy(place[padded(item, start, settings["length"], 0)])
        states = [module.torch_model.encode_sessions({"x": part}, table)[:, -1] for part in rows.split(512)]
        return torch.cat(states), items

    evaluation = callback(
        pytorch_lightning.Callback,
        vectors=vectors,
        folder=folder,
        settings=settings,
        real=lambda batch: batch["y"] != 0,
    )
    users = np.repeat(np.arange(len(start) - 1), np.diff(start))
    order = pd.to_datetime(np.arange(len(item)), unit="s")
    table = pd.DataFrame({Columns.User: users, Columns.Item: item, Columns.Weight: 1.0, Columns.Datetime: order})
    model = SASRecModel(
        n_blocks=settings["layers"],
        n_heads=settings["heads"],
        n_factors=settings["dim"],
        dropout_rate=settings["dropout"],
        session_max_len=settings["length"],
        batch_size=settings["batch"],
        get_trainer_func=lambda: trainer(pytorch_lightning, evaluation),
        **more,
    )
    model.fit(Dataset.construct(table))


def replay(
    folder: Path, settings: dict[str, Any], item: np.ndarray, start: np.ndarray, n_items: int, negatives: int = 0
) -> None:
    """RePlay's SASRec, with its options for speed: batches trimmed to their longest row, rows of similar length encoded together,
    and with ``negatives`` so many sampled items, one draw per batch, instead of the catalogue."""
    import lightning
    import pyarrow as pa
    import pyarrow.parquet as parquet
    from replay.data import FeatureHint, FeatureSource, FeatureType
    from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
    from replay.nn import agg, embedding, loss, mask, sequential
    from replay.nn import transform as transforms
    from replay.nn.lightning import LightningModule
    from replay.nn.sequential.sasrec import PositionAwareAggregator, SasRec, SasRecBody, SasRecTransformerLayer
    from replay.nn.transform.template import make_default_sasrec_transforms

    dim, length, heads, dropout = (settings[name] for name in ("dim", "length", "heads", "dropout"))
    feature = TensorFeatureInfo(
        "item_id",
        is_seq=True,
        feature_type=FeatureType.CATEGORICAL,
        embedding_dim=dim,
        padding_value=n_items,
        cardinality=n_items,
        feature_hint=FeatureHint.ITEM_ID,
        feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
    )

    def vectors(module: Any) -> Vectors:
        rows = torch.from_numpy(padded(item - 1, start, length, n_items))
        lengths = (rows != n_items).sum(1)
        states = torch.empty(len(rows), dim)
        for part in lengths.argsort().split(512):  # as in training: without the padding that all rows of a batch share
            cut = rows[part, -int(lengths[part].max()) :]
            states[part] = module.model.body({"item_id": cut}, cut != n_items)[:, -1]
        items = module.model.body.embedder.get_item_weights()
        return states, torch.cat([items.new_zeros(1, dim), items])

    evaluation = callback(
        lightning.Callback,
        vectors=vectors,
        folder=folder,
        settings=settings,
        real=lambda batch: batch["target_padding_mask"].squeeze(-1) & batch["padding_mask"],
    )
    lists = pa.array([item[a:b] - 1 for a, b in pairwise(start)], pa.list_(pa.int64()))
    parquet.write_table(pa.table({"item_id": lists}), folder / "replay.parquet")
    schema = TensorSchema([feature])
    steps = make_default_sasrec_transforms(schema)["train"]
    trim = transforms.TargetAwareAdaptiveTrimTransform(["item_id", "positive_labels"])
    steps.insert(2, trim)
    if negatives:
        steps.append(transforms.UniformNegativeSamplingTransform(n_items, negatives))
    data = ParquetModule(
        batch_size=settings["batch"],
        metadata={"train": {"item_id": {"shape": length + 1, "padding": n_items}}},
        transforms={"train": steps},
        config={"train": {"generator": torch.Generator().manual_seed(settings["seed"])}},
        train_path=str(folder / "replay.parquet"),
    )
    encoder = SasRecTransformerLayer(dim, heads, settings["layers"], dropout, activation="relu")
    body = SasRecBody(
        embedder=embedding.SequenceEmbedding(schema),
        embedding_aggregator=PositionAwareAggregator(agg.SumAggregator(dim), length, dropout),
        attn_mask_builder=mask.DefaultAttentionMask("item_id", heads),
        encoder=sequential.LengthBucketedQueryEncoder(encoder, bucket_size=32),
        output_normalization=torch.nn.LayerNorm(dim),
    )
    model = SasRec(body, loss.CESampled() if negatives else loss.CE(ignore_index=n_items))
    trainer(lightning, evaluation).fit(LightningModule(model), datamodule=data)


def padded(item: np.ndarray, start: np.ndarray, length: int, padding: int) -> np.ndarray:
    """The last ``length`` items of each user, int64 ``[users, length]``, left-padded."""
    rows = np.full((len(start) - 1, length), padding, dtype=np.int64)
    for row, (a, b) in zip(rows, pairwise(start), strict=True):
        last = item[max(a, b - length) : b]
        row[length - len(last) :] = last
    return rows


PEERS: dict[str, Any] = {
    "RecTools, softmax": (rectools, {}),
    "RecTools, sampled": (rectools, {"loss": "sampled_softmax", "n_negatives": 256}),
    "RecTools, gBCE": (rectools, {"loss": "gBCE", "n_negatives": 16, "gbce_t": 0.75}),
    "RePlay, softmax": (replay, {}),
    "RePlay, sampled": (replay, {"negatives": 256}),
}
"""The function that trains each peer, and the peer's settings that differ from its defaults, apart from the model's size."""


def main(name: str, folder: Path, settings: dict[str, Any]) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    with np.load(folder / "sequences.npz") as arrays:
        item, start, n_items = arrays["item"], arrays["start"], int(arrays["n_items"])
    train, more = PEERS[name]
    train(folder, settings, item, start, n_items, **more)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
