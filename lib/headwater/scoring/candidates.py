"""The items that may be shown at all, and the best of them for some users."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headwater.models.ranker import Ranker
from headwater.models.variety import Variety
from headwater.scoring.kernel import Pairs, top_n


class Candidates:
    """A ranker's catalogue without what may not be shown: what is sold out costs nothing and cannot slip through."""

    def __init__(self, ranker: Ranker, allowed: Tensor) -> None:
        """``allowed`` is bool ``[n_items + 1]``; padding never counts."""
        self.ranker = ranker
        self.live = torch.nonzero(allowed[1:]).squeeze(1) + 1  # ascending, so that ties still go to the lower index
        self.matrix = ranker.matrix[self.live]  # [live, dim + 1]
        self.place = torch.full((ranker.n_items + 1,), -1, dtype=torch.int64)
        self.place[self.live] = torch.arange(len(self.live))

    @torch.inference_mode()
    def lists(
        self, history: Tensor, types: Tensor, blocked: tuple[Tensor, Tensor], n: int, variety: Variety
    ) -> tuple[Tensor, Tensor]:
        """As ``best``, picked for variety out of a wider set; scores are then those of ``variety``."""
        scores, items = self.best(history, types, blocked, variety.width(n))
        return variety.pick(scores, items, n, self.ranker.unit)

    @torch.inference_mode()
    def best(self, history: Tensor, types: Tensor, blocked: tuple[Tensor, Tensor], n: int) -> tuple[Tensor, Tensor]:
        """The ``n`` best items of each history: scores and item indices ``[batch, n]``, ``-inf`` and 0 where none is left.

        ``blocked``: row and item index of what one user must not see, int64 ``[pairs]`` each, every pair once; items
        that the model does not know are fine.
        """
        query = self.ranker.query(history, types)
        bonus = None
        if query.cells is not None:
            cells = query.cells.tocoo()
            bonus = self._pairs(torch.from_numpy(cells.row).long(), torch.from_numpy(cells.col).long(), cells.data)
        if not len(self.live):
            return torch.full((len(history), n), -torch.inf), torch.zeros(len(history), n, dtype=torch.int64)
        scores, places = top_n(query.users, self.matrix, n, self._pairs(*blocked), bonus)
        return scores + query.shift.unsqueeze(1), torch.where(places < 0, 0, self.live[places])

    def _pairs(self, rows: Tensor, items: Tensor, values: np.ndarray | None = None) -> Pairs:
        known = items <= self.ranker.n_items
        place = self.place[torch.where(known, items, 0)]
        keep = known & (place >= 0)
        return Pairs(rows[keep], place[keep], None if values is None else torch.from_numpy(values)[keep])
