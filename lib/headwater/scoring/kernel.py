"""Exact Top-N of user vectors against a whole catalogue, in tiles, so that memory does not grow with the catalogue.

Pure torch. All tiles of scores are written into one buffer of a few megabytes: fresh and larger ones cost more than the
product itself. Each tile is looked through once, for the highest score of each block of its items; only blocks that beat
a user's ``n``-th best score so far are looked into. Ties are broken by the lower item, so that a list does not depend on
tile, block or batch size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 16
"""Items of a block. They stand ``blocks`` apart, so that the highest of all blocks is one elementwise maximum."""
BATCH, TILE = 128, 12_288
"""Users and items of a tile of scores, 6 MiB. Smaller ones are multiplied faster and looked through slower."""


@dataclass(frozen=True)
class Pairs:
    """Some cells of the matrix of users and items: int64 ``rows`` and ``items`` ``[pairs]``, each cell once.

    ``values`` (float32) are what is added to the score of a cell; without them the cell is not to be listed.
    """

    rows: Tensor
    items: Tensor
    values: Tensor | None = None

    def by_batch(self, batch: int, n_items: int) -> tuple[Pairs, Tensor]:
        """The pairs in the order of batch of rows, then item; and the keys, in that order, by which they are found."""
        keys = self.rows // batch * n_items + self.items
        keys, order = keys.sort()
        values = None if self.values is None else self.values[order]
        return Pairs(self.rows[order], self.items[order], values), keys


def top_n(
    users: Tensor,
    items: Tensor,
    n: int,
    blocked: Pairs | None = None,
    bonus: Pairs | None = None,
    batch: int = BATCH,
    tile: int = TILE,
) -> tuple[Tensor, Tensor]:
    """The ``n`` items with the highest product with each user, best first.

    ``users`` ``[users, dim]``, ``items`` ``[items, dim]``, a memory-mapped matrix if it likes. ``bonus`` is added to
    the product in single cells, ``blocked`` cells are left out. Returns scores ``[users, n]`` and the rows of ``items``
    ``[users, n]``; where fewer than ``n`` are left, the rest is ``-inf`` and -1.
    """
    tile = -(-min(tile, len(items)) // BLOCK) * BLOCK
    buffer = torch.empty(min(batch, len(users)), tile, device=users.device)
    cells = [(pairs, *pairs.by_batch(batch, len(items))) for pairs in (bonus, blocked) if pairs is not None]
    scores = torch.full((len(users), n), -torch.inf, device=users.device)
    places = torch.full((len(users), n), -1, dtype=torch.int64, device=users.device)
    for number, first in enumerate(range(0, len(users), batch)):
        some = users[first : first + batch]
        best = _Best(scores[first : first + batch], places[first : first + batch])
        for start in range(0, len(items), tile):
            stop = min(start + tile, len(items))
            tiled = buffer[: len(some)]
            torch.mm(some, items[start:stop].T, out=tiled[:, : stop - start])
            if stop - start < tile:
                tiled[:, stop - start :] = -torch.inf
            for _, pairs, keys in cells:
                low, high = torch.searchsorted(keys, torch.tensor([start, stop]) + number * len(items)).tolist()
                if low < high:
                    cell = (pairs.rows[low:high] - first, pairs.items[low:high] - start)
                    tiled[cell] = -torch.inf if pairs.values is None else tiled[cell] + pairs.values[low:high]
            best.look_through(tiled, start)
        best.settle()
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
        yet; the ``n``-th highest of the blocks' maxima stands in, which ``n`` items reach.
        """
        batch, n = self.values.shape
        blocks = scores.shape[1] // BLOCK
        spread = scores.unflatten(1, (BLOCK, blocks))  # block b holds the columns b, b + blocks, b + 2·blocks, …
        highest = spread.amax(dim=1)  # [batch, blocks]
        if start == 0 and blocks > n:
            self.threshold = highest.topk(n, dim=1).values[:, -1:].nextafter(torch.tensor(-torch.inf))
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
        n = self.values.shape[1]
        rows, items, values = (torch.cat(parts) for parts in zip(*self.waiting, strict=True))
        self.waiting, self.count = [], 0
        rows, order = rows.sort(stable=True)
        many = torch.bincount(rows, minlength=len(self.values))
        place = n + torch.arange(len(rows)) - (many.cumsum(0) - many)[rows]
        shape = (len(self.values), n + int(many.max()))
        all_values, all_items = torch.full(shape, -torch.inf), torch.full(shape, -1)
        all_values[:, :n], all_items[:, :n] = self.values, self.items
        all_values[rows, place], all_items[rows, place] = values[order], items[order]
        all_items, order = all_items.sort(dim=1)
        all_values, order = all_values.gather(1, order).sort(dim=1, descending=True, stable=True)
        self.values.copy_(all_values[:, :n])
        self.items.copy_(all_items.gather(1, order[:, :n]))
        self.threshold = self.values[:, -1:].clone()
