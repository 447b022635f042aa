"""Cold items, which have no events: how well they are ranked by their catalogue features, compared with chance.

    python benchmarks/cold_items.py Beauty.txt.gz --attributes Beauty_item2attributes.json --config conf/experiments/beauty.yaml

Random items are removed from all histories, and a model is trained on the rest. Then, for each event with a removed item,
the history before it ranks (a) the whole catalogue, warm and cold items, and (b) the cold items alone. The vector of a cold
item is made in several ways: from its features, with the feature vectors that the model learned; as the mean of the warm items
nearest to it in content; from its attributes, each represented by the mean of warm items that have it (as
``scoring.newcomers`` does). A mean is shorter than the vector of a usual item, so each vector is also tried with its length
moved towards the usual one. The cost to users whose next item is warm is printed as well: their HR@10 with and without cold
items in the catalogue.
Attributes may be words. With ``--vectors``, a Parquet file with ``item`` (its number) and ``vector``, items are described by
these vectors instead (``training.vectors``); the attribute mean is then left out.
Data are those of ``leave_one_out.py``; no Spark.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import typer
from fitting import CLICK, as_batch, attribute_matrix, fit, last_item, read
from options import MaybeAttributes, Threads, start
from scipy import sparse
from sklearn.preprocessing import normalize
from torch import Tensor

from headwater import config as configuration
from headwater import job
from headwater.errors import UsageError
from headwater.evaluation.cases import HeldOut
from headwater.models.histories import left_padded
from headwater.models.ranker import Ranker
from headwater.scoring import newcomers
from headwater.scoring.vectors import stretched
from headwater.training.describe import BUCKETS
from headwater.training.vectors import feature_matrix

K = 10
LENGTHS = (0.0, 0.5, 0.75, 1.0)
"""By what share the length of a vector is moved to the usual length: `topn.newcomers`."""
NEAREST = 20


def main(
    data: Path,
    attributes: MaybeAttributes = None,
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
    vectors: Path | None = typer.Option(
        None, "--vectors", help="Parquet file with item and vector, instead of --attributes"
    ),
    share: float = typer.Option(0.05, "--share", help="share of the items that are cold"),
    seed: int = typer.Option(1, "--seed"),
    threads: Threads = 1,
) -> None:
    torch.set_num_threads(threads)
    settings = configuration.load(config, set_)
    every = read(data)
    sequences, described, warm = renumbered(every, item_features(every, attributes, vectors), share, seed)
    n_items = last_item(sequences)
    known = [items[items <= warm] for items in sequences]
    known = [items for items in known if len(items) >= 3]
    rows = left_padded([items[:-1] for items in known], settings.encoder_length + 1)
    held = HeldOut(
        np.arange(len(known)),
        [items[:-1] for items in known],
        [np.full(len(items) - 1, CLICK) for items in known],
        [np.unique(items[:-1]) for items in known],
        [items[-1:] for items in known],
        np.array(list(map(len, known))),
    )
    model, _ = fit(as_batch(rows), held.arrays(settings.encoder_length), described[: warm + 1], warm, settings, seed)
    ranker = Ranker(model, {})
    history, targets = cold_cases(sequences, warm)
    print(f"{warm:,} warm items, {n_items - warm:,} cold ones in {len(targets):,} events")
    print(f"{'':<42}chance: whole catalogue {K / n_items:.4f}, cold alone {K / (n_items - warm):.4f}")
    cold = StatesAndTargets(states(ranker, history), targets)
    warm_cases = StatesAndTargets(states(ranker, held.items), np.concatenate(held.targets))
    for name, vectors_of_cold in cold_vectors(ranker, described, warm, with_attributes=vectors is None).items():
        for length in LENGTHS:
            stretched_vectors = stretched(vectors_of_cold, ranker, length)
            show(f"{name}, {length:g}", cold, warm_cases, ranker.item_vectors[1:], stretched_vectors)


@dataclass(frozen=True)
class StatesAndTargets:
    """User states ``[cases, dim]`` and the next item of each user."""

    states: Tensor
    targets: np.ndarray


def states(ranker: Ranker, histories: list[np.ndarray]) -> Tensor:
    codes = [np.full(len(items), CLICK) for items in histories]
    return ranker.query(*ranker.pad(histories, codes)).users[:, :-1]


def item_features(sequences: list[np.ndarray], attributes: Path | None, vectors: Path | None) -> sparse.csr_matrix:
    """Features of each item, from the file that is given. Raises UsageError unless it is exactly one of the two."""
    if attributes and not vectors:
        return attribute_matrix(attributes, sequences)
    if vectors and not attributes:
        return vector_matrix(vectors, last_item(sequences))
    raise UsageError("pass exactly one of --attributes and --vectors")


def renumbered(
    sequences: list[np.ndarray], described: sparse.csr_matrix, share: float, seed: int
) -> tuple[list[np.ndarray], sparse.csr_matrix, int]:
    """Sequences and features with the items shuffled and numbered anew, and how many items are warm: the last ones are cold."""
    n_items = last_item(sequences)
    order = np.concatenate([[0], 1 + np.random.default_rng(seed).permutation(n_items)])
    place = np.argsort(order)
    return [place[items] for items in sequences], described[order], n_items - round(share * n_items)


def vector_matrix(path: Path, n_items: int) -> sparse.csr_matrix:
    table = pd.read_parquet(path)
    return feature_matrix(np.stack(table["vector"].to_list()), table["item"].to_numpy(), n_items, BUCKETS)


def cold_cases(sequences: list[np.ndarray], warm: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The warm items before each event with a cold item, and the cold item; events without a warm item before are left out."""
    found = [
        (before, items[place])
        for items in sequences
        for place in np.flatnonzero(items > warm)
        if len(before := items[:place][items[:place] <= warm])
    ]
    history, targets = zip(*found, strict=True)
    return list(history), np.array(targets)


def cold_vectors(ranker: Ranker, described: sparse.csr_matrix, warm: int, with_attributes: bool) -> dict[str, Tensor]:
    """Vectors of the cold items ``[cold, dim]``, by the name of the method."""
    vectors, known, cold = ranker.item_vectors, described[: warm + 1], described[warm + 1 :]
    assert ranker.model.features is not None
    weight = ranker.model.features.weight.detach().numpy()
    like = normalize(cold) @ normalize(known).T
    like.data[like.data < np.repeat(cut_at(like, NEAREST), np.diff(like.indptr))] = 0.0
    means = {"features": cold @ weight, "nearest in content": normalize(like, norm="l1") @ vectors.numpy()}
    if with_attributes:
        means["attributes, as scoring does"] = (
            newcomers.alike(described, np.ones(warm + 1, dtype=bool)) @ vectors.numpy()
        )
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in means.items()}


def cut_at(matrix: sparse.csr_matrix, count: int) -> np.ndarray:
    """The ``count``-th highest stored value of each row; 0 if a row has no more than ``count`` values."""
    rows = np.split(matrix.data, matrix.indptr[1:-1])
    return np.array([np.partition(row, -count)[-count] if len(row) > count else 0.0 for row in rows])


def show(name: str, cold: StatesAndTargets, warm_cases: StatesAndTargets, own: Tensor, vectors: Tensor) -> None:
    """Print HR@10 of cold targets among all items and among the cold ones, and of warm targets without and with cold items."""
    warm = len(own)
    target_score = (cold.states * vectors[cold.targets - warm - 1]).sum(1, keepdim=True)
    ahead = (cold.states @ vectors.T >= target_score).sum(1) - 1
    overall = ahead + (cold.states @ own.T >= target_score).sum(1)
    target_score = (warm_cases.states * own[warm_cases.targets - 1]).sum(1, keepdim=True)
    without_cold = (warm_cases.states @ own.T >= target_score).sum(1) - 1
    with_cold = without_cold + (warm_cases.states @ vectors.T >= target_score).sum(1)
    hits = [f"{(rank < K).float().mean():.4f}" for rank in (overall, ahead, without_cold, with_cold)]
    print(
        f"{name:<42}HR@10 whole catalogue {hits[0]}, cold alone {hits[1]}; warm targets {hits[2]}, with cold items {hits[3]}",
        flush=True,
    )


if __name__ == "__main__":
    start(main)
