"""The items that may be shown at all, and the best of them for some users."""

from __future__ import annotations

import torch
from scipy import sparse
from torch import Tensor

from headwater.models.ranker import Ranker
from headwater.models.variety import Variety
from headwater.scoring.kernel import Pairs, top_n


class Among:
    """Some rows of a matrix of items, ascending, so that ties still go to the lower index.

    What is left out costs nothing and cannot slip through.
    """

    def __init__(self, matrix: Tensor, rows: Tensor) -> None:
        self.rows, self.matrix = rows, matrix[rows]
        self.place = torch.full((len(matrix),), -1, dtype=torch.int64)
        self.place[rows] = torch.arange(len(rows))

    def best(
        self,
        users: Tensor,
        n: int,
        blocked: tuple[Tensor, Tensor],
        bonus: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The ``n`` rows with the highest product with each user: scores and indices in the whole matrix ``[users, n]``,
        ``-inf`` and 0 where none is left.

        ``blocked`` (users, items) and ``bonus`` (users, items, what is added to the product): int64 and float32
        ``[pairs]`` each, every pair once; items that are not among the rows, or beyond the matrix, are fine.
        """
        if not len(self.rows):
            return torch.full((len(users), n), -torch.inf), torch.zeros(len(users), n, dtype=torch.int64)
        scores, places = top_n(
            users, self.matrix, n, self._pairs(*blocked), None if bonus is None else self._pairs(*bonus)
        )
        return scores, torch.where(places < 0, 0, self.rows[places])

    def _pairs(self, users: Tensor, items: Tensor, values: Tensor | None = None) -> Pairs:
        known = items < len(self.place)
        place = self.place[torch.where(known, items, 0)]
        keep = known & (place >= 0)
        return Pairs(users[keep], place[keep], None if values is None else values[keep])


class Candidates:
    """What of a ranker's catalogue may be shown."""

    def __init__(self, ranker: Ranker, allowed: Tensor) -> None:
        """``allowed`` is bool ``[n_items + 1]``; padding never counts."""
        self.ranker = ranker
        self.among = Among(ranker.matrix, torch.nonzero(allowed[1:]).squeeze(1) + 1)

    @torch.inference_mode()
    def lists(
        self,
        history: Tensor,
        types: Tensor,
        blocked: tuple[Tensor, Tensor],
        n: int,
        variety: Variety,
        categories: Tensor | None = None,
        extra: sparse.csr_matrix | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As ``best``, picked for variety out of a wider set; scores and ``categories`` are then those of
        ``Variety.pick``."""
        scores, items = self.best(history, types, blocked, variety.width(n), extra)
        return variety.pick(scores, items, n, self.ranker.unit, categories)

    @torch.inference_mode()
    def best(
        self,
        history: Tensor,
        types: Tensor,
        blocked: tuple[Tensor, Tensor],
        n: int,
        extra: sparse.csr_matrix | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The ``n`` best items of each history: scores and item indices ``[batch, n]``, ``-inf`` and 0 where none is left.

        ``blocked``: row and item index of what one user must not see (``Among.best``); ``extra``, ``[batch, items]``: what
        is added to single scores, in spreads of the scores of its row.
        """
        query = self.ranker.query(history, types)
        added = query.cells
        if extra is not None:
            scaled = (sparse.diags(self.ranker.spreads(query).numpy()) @ extra).tocsr()
            scaled.resize((len(history), len(self.ranker.matrix)))
            added = scaled if added is None else added + scaled
        bonus = None if added is None else cells(added)
        scores, items = self.among.best(query.users, n, blocked, bonus)
        return scores + query.shift.unsqueeze(1), items


def cells(matrix: sparse.csr_matrix) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and values of a sparse matrix."""
    found = matrix.tocoo()
    return torch.from_numpy(found.row).long(), torch.from_numpy(found.col).long(), torch.from_numpy(found.data).float()
