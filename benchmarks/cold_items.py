"""Items without a single event: how well what the catalogue says of them places them, beside chance and popularity.

    python benchmarks/cold_items.py Beauty.txt.gz --attributes Beauty_item2attributes.json --config conf/experiments/beauty.yaml

Some of the items, drawn by chance, are taken out of all histories, and a model is trained on the rest. Then, for each event
with such an item, the history before it ranks (a) the whole catalogue, warm items and cold, and (b) the cold items alone.
A cold item's vector is made in different ways: by its features, as the model learned what they mean; by the middle of its
categories (``scoring.vectors``); as the mean of the warm items most like it in content.
Data are those of ``leave_one_out.py``; no Spark.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import typer
from leave_one_out import CLICK, as_batch, attribute_matrix, fit, last_item, read
from scipy import sparse
from sklearn.preprocessing import normalize
from torch import Tensor

from headwater import config as configuration
from headwater.evaluation.cases import HeldOut
from headwater.models.histories import left_padded
from headwater.models.ranker import Ranker
from headwater.scoring.vectors import nearest_in_content

K = 10


def main(
    data: Path,
    attributes: Path = typer.Option(..., "--attributes", help="JSON: item → list of attributes"),
    config: list[Path] = typer.Option([], "--config"),
    set_: list[str] = typer.Option([], "--set"),
    share: float = typer.Option(0.05, "--share", help="of the items that are cold"),
    seed: int = typer.Option(1, "--seed"),
    threads: int = typer.Option(1, "--threads"),
) -> None:
    torch.set_num_threads(threads)
    settings = configuration.load(config, set_)
    sequences, described, warm = renumbered(read(data), attributes, share, seed)
    n_items = last_item(sequences)
    known = [items[items <= warm] for items in sequences]
    known = [items for items in known if len(items) >= 3]
    rows = left_padded([items[:-1] for items in known], settings.sequence.max_length + 1)
    held = HeldOut(
        np.arange(len(known)),
        [items[:-1] for items in known],
        [np.full(len(items) - 1, CLICK) for items in known],
        [np.unique(items[:-1]) for items in known],
        [items[-1:] for items in known],
        np.array(list(map(len, known))),
    )
    model, _ = fit(
        as_batch(rows), held.arrays(settings.sequence.max_length), described[: warm + 1], warm, settings, seed
    )
    print(f"{warm:,} warm items, {n_items - warm:,} cold")
    ranker = Ranker(model, {})
    history, targets = cold_cases(sequences, warm)
    own = ranker.item_vectors
    print(f"{len(targets):,} events with cold items")
    show("chance", None, None, targets, own, n_items)
    for name, vectors in made(ranker, described, warm).items():
        codes = [np.full(len(items), CLICK) for items in history]
        users = ranker.query(*ranker.pad(history, codes)).users[:, :-1]
        show(name, users, vectors, targets, own, n_items)


def renumbered(
    sequences: list[np.ndarray], attributes: Path, share: float, seed: int
) -> tuple[list[np.ndarray], sparse.csr_matrix, int]:
    """The same with the cold items last, the features of items in that order, and how many are warm."""
    described, n_items = attribute_matrix(attributes, sequences), last_item(sequences)
    order = np.concatenate([[0], 1 + np.random.default_rng(seed).permutation(n_items)])
    place = np.argsort(order)
    return [place[items] for items in sequences], described[order], n_items - round(share * n_items)


def cold_cases(sequences: list[np.ndarray], warm: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The warm items before each event with a cold one, where there are any, and the cold item."""
    found = [
        (before, items[place])
        for items in sequences
        for place in np.flatnonzero(items > warm)
        if len(before := items[:place][items[:place] <= warm])
    ]
    history, targets = zip(*found, strict=True)
    return list(history), np.array(targets)


def made(ranker: Ranker, described: sparse.csr_matrix, warm: int) -> dict[str, Tensor]:
    """Vectors of the cold items ``[cold, dim]``, by the way they are made."""
    vectors, cold = ranker.item_vectors, described[warm + 1 :]
    weight = ranker.model.features.weight.detach().numpy()
    has = (described[: warm + 1] > 0).astype(np.float32)
    middles = normalize(has, norm="l1", axis=0).T @ vectors.numpy()  # [buckets, dim]
    return {
        "features": torch.from_numpy(cold @ weight),
        "middle of its attributes": torch.from_numpy(normalize(cold > 0, norm="l1").astype(np.float32) @ middles),
        "nearest in content": nearest_in_content(vectors, described[: warm + 1], cold),
    }


def show(name: str, users: Tensor | None, vectors: Tensor | None, targets: np.ndarray, own: Tensor, size: int) -> None:
    """HR@10 and NDCG@10 among all items and among cold ones; popularity knows no cold item, so that it is chance there."""
    warm = len(own) - 1
    if users is None or vectors is None:
        print(f"{name:<28}whole catalogue HR@10 {K / size:.4f}, cold alone HR@10 {K / (size - warm):.4f}")
        return
    cold = users @ vectors.T
    mine = cold[torch.arange(len(users)), torch.from_numpy(targets) - warm - 1].unsqueeze(1)
    ahead = (cold >= mine).sum(1) - 1
    overall = ahead + (users @ own[1:].T >= mine).sum(1)
    for place, rank in {"whole catalogue": overall, "cold alone": ahead}.items():
        hit = rank < K
        gain = (hit / (rank + 2).float().log2()).mean()
        print(f"{name:<28}{place} HR@10 {hit.float().mean():.4f} NDCG@10 {gain:.4f}", flush=True)


if __name__ == "__main__":
    typer.run(main)
