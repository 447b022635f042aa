"""Exact top-k search of user vectors against a whole catalogue, in tiles, so that memory does not grow with the catalogue.

All tiles of scores share one buffer, on a CPU a few megabytes: new or larger buffers cost more than the product itself. Each
tile is scanned once for the maximum of each block of its items; only blocks whose maximum beats a user's ``n``-th best score
so far are examined further. Ties go to the lower item, so that a list does not depend on tile, block or batch size.

On GPUs, where half precision is many times as fast, bfloat16 products select a wider candidate set, which is rescored exactly
(``top_n_rescored``). The result is proved equal to that of an exact search; where the proof fails, users are searched again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

BLOCK = 16
"""Items per block. The items of a block are ``blocks`` columns apart: one elementwise maximum gives the maxima of all blocks."""
GROUPS = 4
"""Groups of blocks per place of a list; their maxima give the threshold of the first tile. More groups mean a longer row for
top-k, fewer let more scores pass."""
TILES = {"cpu": (128, 12_288), "cuda": (16_384, 131_072)}
"""Users and items per tile of scores, by device. On a CPU, smaller tiles are faster to multiply and slower to scan; a GPU
needs large ones to stay busy (4 GiB in half precision)."""
FORBIDDEN = -1e9
"""An entry of an item's vector that keeps it out of a list: far enough below any score to be recognised despite rounding."""
WIDER = 4
"""Candidates kept from bfloat16 products per place of a list."""
ROUNDING, SUMMING = 2.0**-8, 1e-4
"""The largest relative change of a number by rounding to bfloat16, and an allowance for float32 summation."""


@dataclass(frozen=True)
class Pairs:
    """Cells of the matrix of users and items: ints ``rows`` and ``items`` ``[pairs]``, each cell once.

    ``values`` (float32) are added to the scores of the cells; without them the cells are excluded.
    """

    rows: Tensor
    items: Tensor
    values: Tensor | None = None

    def to(self, device: torch.device) -> Pairs:
        """The pairs on a device."""
        values = None if self.values is None else self.values.to(device)
        return Pairs(self.rows.to(device), self.items.to(device), values)

    def of(self, rows: Tensor, n_rows: int) -> Pairs:
        """The pairs of some rows, renumbered from 0 in the order of ``rows``."""
        place = torch.full((n_rows,), -1, dtype=torch.int64, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        keep = place[self.rows] >= 0
        values = None if self.values is None else self.values[keep]
        return Pairs(place[self.rows[keep]], self.items[keep], values)

    def at(self, items: Tensor, n_items: int) -> Tensor:
        """The values of the cells that ``items`` ``[rows, n]`` names in each row, 0 for cells that are not among the pairs."""
        assert self.values is not None, "a bonus has values"
        if not len(self.rows):
            return torch.zeros(items.shape, device=items.device)
        keys, order = (self.rows.long() * n_items + self.items).sort()
        wanted = torch.arange(len(items), device=items.device).unsqueeze(1) * n_items + items
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where(keys[place] == wanted, self.values[order][place], 0.0)

    def by_tile(self, batch: int, tile: int, n_items: int, n_rows: int) -> Tiled:
        """The pairs in the order of tiles, the rows of a sparse matrix here, which scipy converts to CSR by counting sort."""
        rows, items = self.rows.cpu().numpy(), self.items.cpu().numpy()
        across, small = -(-n_items // tile), np.dtype(np.int32 if batch * tile < 2**31 else np.int64)
        every = np.arange(n_rows)  # a row's part of each number is computed once and looked up for its pairs
        column: np.ndarray = (items // tile).astype(small)
        number = (every // batch * across).astype(small)[rows] + column
        place = (every % batch * tile).astype(small)[rows] + (items - column * tile)
        values = np.zeros(len(rows), np.int8) if self.values is None else self.values.cpu().numpy()
        tiles = sparse.coo_matrix((values, (number, place)), shape=(-(-n_rows // batch) * across, batch * tile))
        tiles.has_canonical_format = True  # no cell occurs twice
        found = tiles.tocsr()
        device = self.rows.device
        added = None if self.values is None else torch.from_numpy(found.data).to(device)
        return Tiled(found.indptr.tolist(), torch.from_numpy(found.indices).to(device), added)


@dataclass(frozen=True)
class Tiled:
    """Pairs by tile, one row of tiles after another: those of tile t are ``[ends[t] : ends[t + 1]]``.

    ``place`` int ``[pairs]``: the position of a cell in its tile, counted row by row; ``values`` as in ``Pairs``.
    """

    ends: list[int]
    place: Tensor
    values: Tensor | None

    def put(self, number: int, tile: Tensor) -> None:
        """Add a tile's values to its scores, or set its excluded cells to ``-inf``; ``tile`` is a flat view of the scores."""
        some = slice(self.ends[number], self.ends[number + 1])
        if self.values is None:
            tile.index_fill_(0, self.place[some].long(), -torch.inf)
        else:
            tile.index_add_(0, self.place[some], self.values[some].to(tile.dtype))


def top_n(
    users: Tensor,
    items: Tensor,
    n: int,
    blocked: Pairs | None = None,
    bonus: Pairs | None = None,
    batch: int | None = None,
    tile: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``n`` items with the highest dot product with each user, best first.

    ``users`` ``[users, dim]`` and ``items`` ``[items, dim]`` are both float32 or both of a lower precision; ``items`` may be
    memory-mapped. ``bonus`` is added to the product in single cells; ``blocked`` cells are excluded. Returns scores
    ``[users, n]`` and the rows of ``items`` ``[users, n]``, padded with ``-inf`` and -1 if fewer than ``n`` items are left.
    """
    usual = TILES[users.device.type]
    batch, tile = batch or usual[0], -(-min(tile or usual[1], len(items)) // BLOCK) * BLOCK
    buffer = torch.empty(min(batch, len(users)), tile, device=users.device, dtype=users.dtype)
    cells = [pairs.by_tile(batch, tile, len(items), len(users)) for pairs in (bonus, blocked) if pairs is not None]
    scores = torch.full((len(users), n), -torch.inf, device=users.device, dtype=users.dtype)
    places = torch.full((len(users), n), -1, dtype=torch.int64, device=users.device)
    number = 0
    for first in range(0, len(users), batch):
        some = users[first : first + batch]
        best = _Best(scores[first : first + batch], places[first : first + batch])
        for start in range(0, len(items), tile):
            stop = min(start + tile, len(items))
            tiled = buffer[: len(some)]
            torch.mm(some, items[start:stop].T, out=tiled[:, : stop - start])
            if stop - start < tile:
                tiled[:, stop - start :] = -torch.inf
            for each in cells:
                each.put(number, tiled.view(-1))
            number += 1
            best.scan(tiled, start)
        best.merge()
    return scores, places


def top_n_rescored(
    users: Tensor, items: Tensor, n: int, blocked: Pairs | None = None, bonus: Pairs | None = None
) -> tuple[Tensor, Tensor]:
    """Like ``top_n`` for float32 vectors, by products in bfloat16 and exact scores of the best ``WIDER * n`` of them.

    Rounding both factors, their product and its sum with a bonus moves a score by at most ((1 + δ)⁴ - 1) · |user| · |longest
    item| + ((1 + δ)² - 1) · |largest bonus|, with ``ROUNDING`` as δ (Cauchy-Schwarz). If the lowest rough score that was kept
    is more than that below the ``n``-th exact one, no item that was left out belongs in the list; users for whom this does
    not hold are searched in full.
    """
    wide = WIDER * n
    if wide >= len(items):
        return top_n(users, items, n, blocked, bonus)
    rough, places = top_n(users.bfloat16(), items.bfloat16(), wide, blocked, bonus)
    exact = (items[places.clamp(min=0)] @ users.unsqueeze(2)).squeeze(2)  # [users, wide]
    share = (1 + ROUNDING) ** 4 - 1 + SUMMING
    error = share * users.norm(dim=1) * items.masked_fill(items < FORBIDDEN / 2, 0).norm(dim=1).max()
    if bonus is not None and bonus.values is not None:
        exact = exact + bonus.at(places, len(items))
        largest = torch.zeros_like(error).scatter_reduce(0, bonus.rows, bonus.values.abs(), "amax")
        error = error + ((1 + ROUNDING) ** 2 - 1) * largest
    exact = exact.masked_fill(places < 0, -torch.inf)
    places, order = places.sort(dim=1)
    exact, best = exact.gather(1, order).sort(dim=1, descending=True, stable=True)
    scores, places = exact[:, :n].clone(), places.gather(1, best[:, :n])
    unproved = (rough[:, -1] > -torch.inf) & (rough[:, -1] + error >= scores[:, -1])
    if unproved.any():
        rows = unproved.nonzero().squeeze(1)
        left_out, added = (None if pairs is None else pairs.of(rows, len(users)) for pairs in (blocked, bonus))
        scores[rows], places[rows] = top_n(users[rows], items, n, left_out, added)
    return scores, places


class _Best:
    """The best of one batch so far, ``values`` and ``items`` ``[batch, n]``, written in place, and scores waiting to be
    merged."""

    def __init__(self, values: Tensor, items: Tensor) -> None:
        self.values, self.items = values, items
        self.threshold = torch.full_like(values[:, :1], -torch.inf)
        self.waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self.count = 0

    def scan(self, scores: Tensor, start: int) -> None:
        """Keep the scores of a tile ``[batch, width]`` that may be among the best; ``start`` is its first item.

        An item of a later tile must beat the ``n``-th best score, since the lower item wins a tie. In the first tile there is
        no such score yet; the threshold is the ``n``-th highest of the maxima of blocks, or of groups of blocks, which ``n``
        items reach.
        """
        batch, n = self.values.shape
        blocks = scores.shape[1] // BLOCK
        spread = scores.unflatten(1, (BLOCK, blocks))  # block b holds the columns b, b + blocks, b + 2·blocks, …
        highest = spread.amax(dim=1)  # [batch, blocks]
        if start == 0 and blocks > n:
            groups = min(GROUPS * n, blocks)
            maxima = highest[:, : blocks // groups * groups].unflatten(1, (-1, groups)).amax(dim=1)
            self.threshold = maxima.topk(n, dim=1).values[:, -1:].nextafter(self.threshold)
        rows, block = (highest > self.threshold).nonzero(as_tuple=True)
        if not len(rows):
            return
        found = spread[rows, :, block]  # [pairs, BLOCK]
        pair, place = (found > self.threshold[rows]).nonzero(as_tuple=True)
        self.waiting.append((rows[pair], start + place * blocks + block[pair], found[pair, place]))
        self.count += len(pair)
        if start == 0 or self.count > 4 * batch * n:
            self.merge()

    def merge(self) -> None:
        """Merge the waiting scores, ties by lower item."""
        if not self.count:
            return
        batch, n = self.values.shape
        many = torch.stack([torch.bincount(rows, minlength=batch) for rows, _, _ in self.waiting])  # [tiles, batch]
        shape = (batch, n + int(many.sum(dim=0).max()))
        values = self.values.new_full(shape, -torch.inf)
        items = self.items.new_full(shape, -1)
        values[:, :n], items[:, :n] = self.values, self.items
        filled = many.new_full((batch,), n)
        for (rows, found, scores), more in zip(self.waiting, many, strict=True):
            place = torch.arange(len(rows), device=rows.device) + (filled + more - more.cumsum(0))[rows]
            values[rows, place], items[rows, place] = scores, found
            filled += more
        self.waiting, self.count = [], 0
        best, order = values.topk(n + 1, dim=1)
        self.values.copy_(best[:, :n])
        self.items.copy_(items.gather(1, order[:, :n]))
        tied = ((best[:, 1:] == best[:, :-1]) & (best[:, 1:] > -torch.inf)).any(dim=1).nonzero().squeeze(1)
        if len(tied):  # topk defines neither the order of ties nor which of them end a list
            theirs, order = items[tied].sort(dim=1)
            order = values[tied].gather(1, order).sort(dim=1, descending=True, stable=True).indices
            self.items[tied] = theirs.gather(1, order[:, :n])
        self.threshold = self.values[:, -1:].clone()
