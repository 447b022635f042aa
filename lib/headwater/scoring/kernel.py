"""Exact Top-N of user vectors against a whole catalogue, in tiles, so that memory does not grow with the catalogue.

All tiles of scores are written into one buffer of a few megabytes: fresh and larger ones cost more than the
product itself. Each tile is looked through once, for the highest score of each block of its items; only blocks that beat
a user's ``n``-th best score so far are looked into. Ties are broken by the lower item, so that a list does not depend on
tile, block or batch size.

Where half precision is many times as fast, on GPUs, a wider set is found by rough products and scored again exactly
(``top_n_rescored``); the result is proved to be the same, or found anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

BLOCK = 16
"""Items of a block. They stand ``blocks`` apart, so that the highest of all blocks is one elementwise maximum."""
GROUPS = 4
"""Groups of blocks for each place of a list, whose maxima tell where the first tile's scores begin to matter: of more, a
longer row has to be sorted; with fewer, more scores are looked at."""
TILES = {"cpu": (128, 12_288), "cuda": (16_384, 131_072)}
"""Users and items of a tile of scores, by device. On a CPU smaller ones are multiplied faster and looked through slower;
a GPU is kept busy by large ones (4 GiB in half precision)."""
FORBIDDEN = -1e9
"""An entry of an item's vector that keeps the item out of a list: so far below any score that it can be told apart, however
much rounding moves it."""
WIDER = 4
"""How many candidates rough products leave for each place of a list."""
ROUNDING, SUMMING = 2.0**-8, 1e-4
"""By how much a number may change, as a share of itself, when bfloat16 rounds it; and what adding up float32 may add."""


@dataclass(frozen=True)
class Pairs:
    """Some cells of the matrix of users and items: ints ``rows`` and ``items`` ``[pairs]``, each cell once.

    ``values`` (float32) are what is added to the score of a cell; without them the cell is not to be listed.
    """

    rows: Tensor
    items: Tensor
    values: Tensor | None = None

    def to(self, device: torch.device) -> Pairs:
        """The same on a device."""
        values = None if self.values is None else self.values.to(device)
        return Pairs(self.rows.to(device), self.items.to(device), values)

    def of(self, rows: Tensor, n_rows: int) -> Pairs:
        """Those of some rows, which are counted from 0 then, in their order."""
        place = torch.full((n_rows,), -1, dtype=torch.int64, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        keep = place[self.rows] >= 0
        values = None if self.values is None else self.values[keep]
        return Pairs(place[self.rows[keep]], self.items[keep], values)

    def at(self, items: Tensor, n_items: int) -> Tensor:
        """The values of the cells of each row that ``items`` ``[rows, n]`` names, 0 where there is none."""
        assert self.values is not None, "cells that are added have values"
        if not len(self.rows):
            return torch.zeros(items.shape, device=items.device)
        keys, order = (self.rows.long() * n_items + self.items).sort()
        wanted = torch.arange(len(items), device=items.device).unsqueeze(1) * n_items + items
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where(keys[place] == wanted, self.values[order][place], 0.0)

    def by_tile(self, batch: int, tile: int, n_items: int, n_rows: int) -> Tiled:
        """The pairs in the order of tiles. scipy's conversion of a sparse matrix, whose rows are tiles here, is a counting sort."""
        rows, items = self.rows.cpu().numpy(), self.items.cpu().numpy()
        across, small = -(-n_items // tile), np.dtype(np.int32 if batch * tile < 2**31 else np.int64)
        every = np.arange(n_rows)  # what a row adds to a number is found once, and looked up for each of its pairs
        column: np.ndarray = (items // tile).astype(small)
        number = (every // batch * across).astype(small)[rows] + column
        place = (every % batch * tile).astype(small)[rows] + (items - column * tile)
        values = np.zeros(len(rows), np.int8) if self.values is None else self.values.cpu().numpy()
        tiles = sparse.coo_matrix((values, (number, place)), shape=(-(-n_rows // batch) * across, batch * tile))
        tiles.has_canonical_format = True  # no cell stands twice
        found = tiles.tocsr()
        device = self.rows.device
        added = None if self.values is None else torch.from_numpy(found.data).to(device)
        return Tiled(found.indptr.tolist(), torch.from_numpy(found.indices).to(device), added)


@dataclass(frozen=True)
class Tiled:
    """Pairs by tile, row after row of tiles: those of tile t are ``[ends[t] : ends[t + 1]]``.

    ``place`` int ``[pairs]`` counts the cells of a tile row by row; ``values`` as in ``Pairs``.
    """

    ends: list[int]
    place: Tensor
    values: Tensor | None

    def put(self, number: int, tile: Tensor) -> None:
        """Add what is added in a tile, or set what is not to be listed to ``-inf``; ``tile`` is a flat view of it."""
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
    """The ``n`` items with the highest product with each user, best first.

    ``users`` ``[users, dim]``, ``items`` ``[items, dim]``, a memory-mapped matrix if it likes, both float32 or both of
    fewer bits. ``bonus`` is added to the product in single cells, ``blocked`` cells are left out. Returns scores
    ``[users, n]`` and the rows of ``items`` ``[users, n]``; where fewer than ``n`` are left, the rest is ``-inf`` and -1.
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
            best.look_through(tiled, start)
        best.settle()
    return scores, places


def top_n_rescored(
    users: Tensor, items: Tensor, n: int, blocked: Pairs | None = None, bonus: Pairs | None = None
) -> tuple[Tensor, Tensor]:
    """As ``top_n`` of float32 vectors, by products in bfloat16 and exact scores of the ``WIDER`` set that these leave.

    Rounding both factors, their product and its sum with a bonus moves a score by at most ((1 + δ)⁴ - 1) · |user| ·
    |longest item| + ((1 + δ)² - 1) · |largest bonus|, with δ for ``ROUNDING`` (Cauchy and Schwarz). So where the worst
    rough score that was kept lies more than that below the ``n``-th exact one, nothing that was left out can stand in
    the list; users of whom this cannot be said are searched in full.
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
    """The best so far of one batch: ``values`` and ``items`` ``[batch, n]``, written in place, and what may join them."""

    def __init__(self, values: Tensor, items: Tensor) -> None:
        self.values, self.items = values, items
        self.threshold = torch.full_like(values[:, :1], -torch.inf)
        self.waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self.count = 0

    def look_through(self, scores: Tensor, start: int) -> None:
        """Keep what of a tile ``[batch, width]``, whose first item is ``start``, may be among the best.

        An item of a later tile must beat the ``n``-th best: the lower item wins a tie. In the first tile there is none
        yet; the ``n``-th highest of the maxima of blocks, or of groups of blocks, stands in, which ``n`` items reach.
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
            self.settle()

    def settle(self) -> None:
        """Let the waiting ones join: by score, then by item."""
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
        if len(tied):  # topk leaves open in which order, and at the end of a list which of them
            theirs, order = items[tied].sort(dim=1)
            order = values[tied].gather(1, order).sort(dim=1, descending=True, stable=True).indices
            self.items[tied] = theirs.gather(1, order[:, :n])
        self.threshold = self.values[:, -1:].clone()
