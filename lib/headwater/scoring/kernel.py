"""Exact Top-N of user vectors against a whole catalogue, in tiles, so that memory does not grow with the catalogue.

Pure torch. Ties are broken by the lower item index, so that a list does not depend on tile or batch size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TileScores = Callable[[int, int], Tensor]
"""Scores of all users for the items ``start … stop - 1``: ``[batch, stop - start]``."""


def top_n(
    tile_scores: TileScores,
    allowed: Tensor,
    blocked_rows: Tensor,
    blocked_items: Tensor,
    n: int,
    tile: int = 65_536,
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
        scores = scores.masked_fill(~allowed[start:stop], -torch.inf)
        here = (blocked_items >= start) & (blocked_items < stop)
        scores[blocked_rows[here], blocked_items[here] - start] = -torch.inf
        values, places = _first(scores, min(n, stop - start))
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
