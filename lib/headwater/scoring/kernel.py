"""Exact Top-N of user vectors against a whole catalogue, in tiles, so that memory does not grow with the catalogue.

Pure torch. A tile is looked through once, for the highest score of each block of its items; only the ``n`` best blocks
can hold the ``n`` best items, and only these are selected from. Ties are broken by the lower item index, so that a list
does not depend on tile, block or batch size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TileScores = Callable[[int, int], Tensor]
"""Scores of all users for the items ``start … stop - 1``: ``[batch, stop - start]``."""

BLOCK = 64
"""Items of a block. They stand ``blocks`` apart, so that the highest of all blocks is one elementwise maximum."""


def top_n(
    tile_scores: TileScores,
    allowed: Tensor,
    blocked_rows: Tensor,
    blocked_items: Tensor,
    n: int,
    tile: int = 16_384,
) -> tuple[Tensor, Tensor]:
    """The ``n`` best allowed items of each user, best first.

    ``allowed`` is bool ``[items]`` (padding and unavailable items False); ``blocked_rows``/``blocked_items`` are int64
    ``[pairs]``: what one user must not see. Returns scores ``[batch, n]`` and item indices ``[batch, n]``; where fewer
    than ``n`` items are left, the rest is ``-inf`` and index 0.
    """
    best: tuple[Tensor, Tensor] | None = None
    for start in range(0, len(allowed), tile):
        stop = min(start + tile, len(allowed))
        scores = tile_scores(start, stop)
        scores[:, torch.nonzero(~allowed[start:stop]).squeeze(1)] = -torch.inf
        here = (blocked_items >= start) & (blocked_items < stop)
        scores[blocked_rows[here], blocked_items[here] - start] = -torch.inf
        values, places = _best(scores, min(n, stop - start))
        found = (values, places + start)
        if best is not None:
            values = torch.cat([best[0], found[0]], dim=1)
            items = torch.cat([best[1], found[1]], dim=1)
            values, places = _first(values, min(n, values.shape[1]))
            found = (values, items.gather(1, places))
        best = found
    assert best is not None, "a catalogue has at least its padding row"
    scores, items = best
    if scores.shape[1] < n:
        missing = n - scores.shape[1]
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
        items = torch.nn.functional.pad(items, (0, missing))
    return scores, items.masked_fill(scores == -torch.inf, 0)


def _best(scores: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The ``n`` highest of each row with their columns, equal scores in column order, by way of block maxima."""
    batch, width = scores.shape
    blocks = width // BLOCK
    if blocks < 2 * n:
        return _first(scores, n)
    whole = blocks * BLOCK
    spread = scores[:, :whole].unflatten(1, (BLOCK, blocks))  # block b holds the columns b, b + blocks, b + 2·blocks, …
    highest = spread.amax(dim=1)  # [batch, blocks]
    chosen = highest.topk(n, dim=1).indices.sort(dim=1).values
    columns = torch.arange(BLOCK).unsqueeze(1) * blocks + chosen.unsqueeze(1)  # [batch, BLOCK, n], ascending
    columns = torch.cat([columns.flatten(1), torch.arange(whole, width).expand(batch, -1)], dim=1)
    found, places = _first(scores.gather(1, columns), n)
    columns = columns.gather(1, places)
    # a block that was not chosen may hold an item as good as the last one found
    tied = (highest >= found[:, -1:]).sum(dim=1) > n
    if tied.any():
        found[tied], columns[tied] = _first(scores[tied], n)
    return found, columns


def _first(scores: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The ``n`` highest of each row with their columns, equal scores in column order.

    ``topk`` alone picks any of several equal scores; rows in which that matters are sorted again, stably.
    """
    values, places = scores.topk(n, dim=1)
    places, order = places.sort(dim=1)
    values = values.gather(1, order)
    values, order = values.sort(dim=1, descending=True, stable=True)
    places = places.gather(1, order)
    if n < scores.shape[1]:
        tied = (scores >= values[:, -1:]).sum(dim=1) > n
        if tied.any():
            again, columns = scores[tied].sort(dim=1, descending=True, stable=True)
            values[tied], places[tied] = again[:, :n], columns[:, :n]
    return values, places
