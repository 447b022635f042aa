"""Candidates from an approximate index (faiss), for catalogues too large for an exhaustive search per user.

An index holds only items that may be shown, and only selects candidates: these, and items with a bonus, such as those from a
hybrid's neighbours, are scored exactly. It is a file that all workers memory-map, so that they share one copy. faiss is an
optional dependency of the package and is imported only here.

The index is an inverted file (IVF) with ``4 √items`` k-means centroids; a search visits the ``PROBED`` lists whose centroids
have the highest product with the user. Graphs (HNSW) have lower recall by inner product and take three times as long to
build; see docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headwater import local
from headwater.errors import UsageError
from headwater.models.ranker import GATHER_BATCH

PROBED = 128
"""Lists visited per user. Up to 1,024 items these are all lists, and the search is exact."""


def library() -> Any:
    """The package faiss. Raises UsageError if it is not installed."""
    try:
        import faiss
    except ImportError:
        raise UsageError(
            "topn.index: faiss is not installed (make env installs it; elsewhere pip install faiss-cpu); or set topn.index to exact"
        ) from None
    return faiss


def write(vectors: Tensor, path: Path) -> None:
    """Write an inner-product index of the rows of ``vectors`` ``[rows, dim]`` to ``path``; equal input gives equal lists."""
    faiss = library()
    faiss.omp_set_num_threads(local.cores())
    rows, dim = vectors.shape
    count = min(rows, round(4 * rows**0.5))
    nearest, highest = faiss.IndexFlatL2(dim), faiss.IndexFlatIP(dim)
    made = faiss.IndexIVFFlat(nearest, dim, count, faiss.METRIC_INNER_PRODUCT)
    made.cp.spherical, made.cp.niter = False, 10
    made.cp.min_points_per_centroid, made.cp.max_points_per_centroid = 1, 32
    made.train(vectors.numpy())
    made.add(vectors.numpy())
    highest.add(nearest.reconstruct_n(0, count))
    made.quantizer, made.nprobe = highest, min(count, PROBED)
    faiss.write_index(made, str(path))


class FaissIndex:
    """Approximate search among some rows of a matrix of ``n`` items; it is used like ``ExactIndex``."""

    def __init__(self, path: Path, n: int, rows: Tensor, vectors: Callable[[Tensor], Tensor]) -> None:
        """``path``: the file that ``write`` made of ``vectors(rows)``; ``vectors`` returns the vectors of some items."""
        faiss = library()
        faiss.omp_set_num_threads(1)  # Spark runs a worker per core
        self.index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        assert self.index.ntotal == len(rows), "the index file was built from other rows"
        self.rows, self.vectors = rows, vectors
        self.shown = torch.zeros(n, dtype=torch.bool)
        self.shown[rows] = True

    def best(
        self,
        users: Tensor,
        n: int,
        blocked: tuple[Tensor, Tensor],
        bonus: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Like ``ExactIndex.best``, but only among the items that the index finds and those with a bonus. A cell of the
        matrix of users and items is one number here, ``user * size + item``, where ``size`` is the number of items."""
        left_out, size = self._cells(*blocked)[0], len(self.shown)
        cells = self._found(users, n + torch.bincount(left_out // size, minlength=len(users)))
        added, values = (left_out[:0], None) if bonus is None else self._cells(*bonus)
        cells = torch.cat([cells, added]).unique()  # by user, then by item
        cells = cells[~torch.isin(cells, left_out)]
        scores = torch.cat(
            [(self.vectors(some % size) * users[some // size]).sum(dim=1) for some in cells.split(GATHER_BATCH)]
        )
        if values is not None and len(cells):
            place = torch.searchsorted(cells, added).clamp(max=len(cells) - 1)
            scores.index_add_(0, place, values * (cells[place] == added))
        return _by_user(cells // size, cells % size, scores, (len(users), n))

    def _cells(self, users: Tensor, items: Tensor, values: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The cells of items that may be shown, and their values."""
        known = items < len(self.shown)
        known &= self.shown[torch.where(known, items, 0)]
        return users[known] * len(self.shown) + items[known], None if values is None else values[known]

    def _found(self, users: Tensor, many: Tensor) -> Tensor:
        """The cells of at least ``many`` items for each user. Users are searched by their ``many``, rounded up to powers of
        two, so that a user with a long exclusion list does not widen the search for all."""
        found = []
        exponent = many.double().log2().ceil().long()
        for one in exponent.unique().tolist():
            rows = (exponent == one).nonzero().squeeze(1)
            _, places = self.index.search(users[rows].numpy(), min(2**one, self.index.ntotal))
            places = torch.from_numpy(places)
            cells = rows.unsqueeze(1) * len(self.shown) + self.rows[places.clamp(min=0)]
            found.append(cells[places >= 0])
        return torch.cat(found)


def _by_user(users: Tensor, items: Tensor, scores: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The best cells of each user by score, ties by lower item: scores and items of ``shape`` ``[users, n]``, padded with
    ``-inf`` and 0. The cells must be in the order of users and items."""
    many = torch.bincount(users, minlength=shape[0])
    place = torch.arange(len(users)) - (many.cumsum(0) - many)[users]
    width = max(int(many.max()), shape[1])
    every, which = torch.full((shape[0], width), -torch.inf), torch.zeros(shape[0], width, dtype=torch.int64)
    every[users, place], which[users, place] = scores, items
    every, order = every.sort(dim=1, descending=True, stable=True)
    return every[:, : shape[1]], which.gather(1, order)[:, : shape[1]]
