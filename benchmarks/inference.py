"""Does a smaller or compiled model pay off in scoring? Rate and NDCG@10 of several ways to run one trained model on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/inference.py Beauty.txt.gz --attributes Beauty_item2attributes.json \\
        --config conf/experiments/beauty.yaml --set train.loss.kind=sampled_softmax --set train.loss.negatives=2048

Encoding: plain float32; bfloat16 (autocast); int8 (torch's dynamic quantisation of the linear layers); half and nine tenths
of each linear layer's weights pruned by magnitude; compiled (``torch.compile``, dynamic shapes). Product with the item matrix:
float32, and both sides rounded to bfloat16. Histories are encoded in order of length, as many at once as in ``Ranker``. Prints
users per CPU second, the best of three runs, and NDCG@10 on the test split of ``leave_one_out.py``. One thread, no Spark.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fitting import as_batch, attribute_matrix, fit, held_out, last_item, read
from options import MaybeAttributes, start
from torch import Tensor, nn
from torch.nn.utils import prune

from headwater import config as configuration
from headwater import job
from headwater.models import SequenceModel
from headwater.models.histories import left_padded
from headwater.models.ranker import ENCODER_BATCH
from headwater.training.validation import Cases, ndcg

Encode = Callable[[Tensor, Tensor], Tensor]
"""Histories and their context ``[batch, seq]`` → user vectors ``[batch, dim]``."""
BATCH = ENCODER_BATCH["cpu"]
ROUNDS = 3


def main(
    data: Path,
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
    attributes: MaybeAttributes = None,
) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    settings = configuration.load(config, set_)
    length, sequences = settings.encoder_length, read(data)
    described = attribute_matrix(attributes, sequences) if attributes else None
    rows = left_padded([items[:-2] for items in sequences], length + 1)
    batch, n_items = as_batch(rows[(rows > 0).sum(1) >= 2]), last_item(sequences)
    model, _ = fit(batch, held_out(sequences, 2).arrays(length), described, n_items, settings, 1)
    cases = held_out(sequences, 1).arrays(length)
    with torch.inference_mode():
        matrix = model.item_matrix().clone()
        print(f"{'encoding':<28}{'users/s':>10}{'×':>8}{'NDCG@10':>10}")
        baseline = 0.0
        for name, encode in ways(model).items():
            vectors = encoded(encode, cases)  # warms up
            rate = len(cases) / min(timed(partial(encoded, encode, cases)) for _ in range(ROUNDS))
            baseline = baseline or rate
            found = quality(vectors @ matrix.T, cases)
            print(f"{name:<28}{rate:>10,.0f}{rate / baseline:>8.2f}{found:>10.4f}", flush=True)
        print(f"{'product':<28}{'users/s':>10}{'×':>8}{'NDCG@10':>10}")
        vectors, baseline = encoded(ways(model)["float32"], cases), 0.0
        for name, kind in {"float32": torch.float32, "bfloat16": torch.bfloat16}.items():
            users, items = vectors.to(kind), matrix.to(kind)
            scores = users @ items.T
            rate = len(cases) / min(timed(partial(torch.matmul, users, items.T)) for _ in range(ROUNDS))
            baseline = baseline or rate
            print(f"{name:<28}{rate:>10,.0f}{rate / baseline:>8.2f}{quality(scores.float(), cases):>10.4f}", flush=True)


def ways(model: SequenceModel) -> dict[str, Encode]:
    """Ways to encode histories, the usual one first. The weights of quantised layers cannot be sliced, so the last one
    encodes all states, not only the newest as the others do; the line before it does the same in float32, for comparison."""

    def reduced(items: Tensor, context: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model.user_vectors(items, context)

    def whole(encoder: SequenceModel) -> Encode:
        return lambda items, context: encoder.encode(items, context)[:, -1]

    small = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    return {
        "float32": model.user_vectors,
        "bfloat16": reduced,
        "half of the weights pruned": pruned(model, 0.5).user_vectors,
        "nine tenths pruned": pruned(model, 0.9).user_vectors,
        "compiled": torch.compile(model.user_vectors, dynamic=True),
        "float32, all states": whole(model),
        "int8, all states": whole(small),
    }


def pruned(model: SequenceModel, share: float) -> SequenceModel:
    """A copy in which the smallest weights of each linear layer, a ``share`` of them, are zero."""
    smaller = copy.deepcopy(model)
    for layer in smaller.modules():
        if isinstance(layer, nn.Linear):
            prune.l1_unstructured(layer, "weight", share)
            prune.remove(layer, "weight")
    return smaller


def encoded(encode: Encode, cases: Cases) -> Tensor:
    order = cases.by_length()
    parts = [encode(items, context).float() for _, items, context in cases.batches(order, BATCH)]
    return torch.cat(parts)[torch.from_numpy(order).argsort()]


def timed(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def quality(scores: Tensor, cases: Cases, batch: int = 512) -> float:
    total = 0.0
    for users in np.split(np.arange(len(cases)), range(batch, len(cases), batch)):
        some = scores[torch.from_numpy(users)]
        cases.hide_seen(some, users)
        total += float(ndcg(some, cases.target_places(users, some.shape[1]), cases.ideal(users)).sum())
    return total / len(cases)


if __name__ == "__main__":
    start(main)
