"""Item features from the catalogue: an item's vector is the sum of its own vector and the vectors of its features.

Rare items gain from features that they share with others, and even an item without any event has a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ItemFeatures(nn.Module):
    """The feature vectors ``weight`` ``[buckets, dim]``, and the features of each item as the arrays of a CSR matrix."""

    start: Tensor
    bucket: Tensor
    share: Tensor

    def __init__(self, rows: int, buckets: int, cells: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(buckets, dim))
        self.register_buffer("start", torch.zeros(rows + 1, dtype=torch.int64))
        self.register_buffer("bucket", torch.zeros(cells, dtype=torch.int64))
        self.register_buffer("share", torch.zeros(cells))

    def forward(self, items: Tensor) -> Tensor:
        """The feature part of the vectors of ``items`` int64 ``[n]``: ``[n, dim]``; zero for an item without features."""
        first = self.start[items]
        counts = self.start[items + 1] - first
        offsets = counts.cumsum(0) - counts
        places = torch.arange(int(counts.sum()), device=items.device) + (first - offsets).repeat_interleave(counts)
        return F.embedding_bag(
            self.bucket[places], self.weight, offsets, mode="sum", per_sample_weights=self.share[places]
        )
