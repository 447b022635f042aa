"""Search for the best items of each user among those that may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from headwater.models.ranker import Query, Ranker
from headwater.scoring.index import FaissIndex
from headwater.scoring.kernel import FORBIDDEN, Pairs, top_n, top_n_rescored


class ExactIndex:
    """Exact search among some rows of a matrix of ``n`` items. The rows ascend, so that ties go to the lower index.

    Items outside these rows cost nothing and are never found.
    """

    def __init__(self, n: int, rows: Tensor, matrix: Tensor) -> None:
        """``matrix`` ``[rows, dim]`` holds only these rows. The search runs on its device; everything else is on the CPU."""
        self.rows, self.matrix = rows, matrix
        self.place = np.full(n + 1, -1, dtype=np.int32)  # the last entry is for all items beyond the matrix
        self.place[rows.numpy()] = np.arange(len(rows))

    def best(
        self,
        users: Tensor,
        n: int,
        blocked: tuple[Tensor, Tensor],
        bonus: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The ``n`` rows with the highest dot product with each user: scores and indices in the whole matrix ``[users, n]``,
        padded with ``-inf`` and 0.

        ``blocked`` (users, items) and ``bonus`` (users, items, number to add to the product): ints and float32 ``[pairs]``
        each, every pair once. They may contain items that are not among the rows, or beyond the matrix.
        """
        if not len(self.rows):
            return torch.full((len(users), n), -torch.inf), torch.zeros(len(users), n, dtype=torch.int64)
        device = self.matrix.device
        left_out, added = (None if pairs is None else self._pairs(*pairs).to(device) for pairs in (blocked, bonus))
        search = top_n if device.type == "cpu" else top_n_rescored
        scores, places = (found.cpu() for found in search(users.to(device), self.matrix, n, left_out, added))
        return scores, torch.where(places < 0, 0, self.rows[places])

    def _pairs(self, users: Tensor, items: Tensor, values: Tensor | None = None) -> Pairs:
        place = torch.from_numpy(np.take(self.place, items.numpy(), mode="clip"))
        keep = place >= 0
        if not keep.all():
            users, place, values = users[keep], place[keep], None if values is None else values[keep]
        return Pairs(users, place, values)


@dataclass(frozen=True)
class CandidateQuery:
    """The scores of the candidates for some users: ``users`` ``[batch, columns of the matrix]`` @ matrix.T, plus ``cells``,
    sparse ``[batch, items]``. ``spread`` ``[batch]``: the standard deviation of a user's scores."""

    users: Tensor
    spread: Tensor
    cells: sparse.csr_matrix | None

    def of(self, users: Tensor) -> CandidateQuery:
        """The query for some of the users, int64 positions."""
        cells = None if self.cells is None else self.cells[users.numpy()]
        return CandidateQuery(self.users[users], self.spread[users], cells)


class Candidates:
    """The items of a ranker's catalogue that may be shown, with an extra matrix column per group of users if ``offsets`` are
    given."""

    def __init__(
        self, ranker: Ranker, allowed: Tensor, offsets: Tensor | None = None, index_file: Path | None = None
    ) -> None:
        """``allowed``: bool ``[items]``, padding is never allowed; ``offsets`` ``[items, groups]``: score offsets of each
        group, in standard deviations of a user's scores, ``FORBIDDEN`` for items that the group must not see; ``index_file``: a
        file that ``index.write`` made of ``index.matrix`` of the same candidates, searched instead of the matrix."""
        self.ranker, self.offsets = ranker, offsets
        self.groups = 0 if offsets is None else offsets.shape[1]
        rows = torch.nonzero(allowed[1:]).squeeze(1) + 1
        self.index: ExactIndex | FaissIndex = (
            self.exact_index(rows) if index_file is None else FaissIndex(index_file, ranker.size, rows, self.matrix)
        )

    def matrix(self, rows: Tensor) -> Tensor:
        """The matrix rows of some items, to be multiplied with ``CandidateQuery.users``."""
        found = self.ranker.rows(rows)
        return found if self.offsets is None else torch.cat([found, self.offsets[rows]], dim=1)

    def exact_index(self, rows: Tensor) -> ExactIndex:
        """An exact index of some items only, in ascending order."""
        return ExactIndex(self.ranker.size, rows, self.matrix(rows).to(self.ranker.device))

    @torch.inference_mode()
    def query(
        self, query: Query, member: Tensor | None = None, extra: sparse.csr_matrix | None = None
    ) -> CandidateQuery:
        """The query for some users. ``member``: each user's group, int64 ``[batch]``; ``extra`` ``[batch, items]``: offsets
        of single scores, in standard deviations of a user's scores."""
        spread, users, cells = torch.ones(len(query.users)), query.users, query.cells
        if self.groups or extra is not None:
            spread = self.ranker.score_deviations(query)
            spread = torch.where(spread > 0, spread, 1.0)  # a single item has no spread
        if self.groups:
            assert member is not None, "rules by group need the group of each user"
            own = torch.nn.functional.one_hot(member, self.groups) * spread.unsqueeze(1)
            users = torch.cat([users, own], dim=1)
        if extra is not None:
            scaled = (sparse.diags(spread.numpy()) @ extra).tocsr()
            scaled.resize((len(users), self.ranker.size))
            cells = scaled if cells is None else cells + scaled
        return CandidateQuery(users, spread, cells)

    @torch.inference_mode()
    def best(
        self, query: CandidateQuery, blocked: tuple[Tensor, Tensor], n: int, index: ExactIndex | None = None
    ) -> tuple[Tensor, Tensor]:
        """The ``n`` best items of each user, from ``index`` if given, else from all that may be shown: scores and item
        indices ``[batch, n]``, padded with ``-inf`` and 0.

        ``blocked``: pairs of users and items that must not be listed (``ExactIndex.best``).
        """
        bonus = None if query.cells is None else cells(query.cells)
        scores, items = (index or self.index).best(query.users, n, blocked, bonus)
        if self.groups:
            forbidden = scores < FORBIDDEN / 2 * query.spread.unsqueeze(1)
            scores, items = scores.masked_fill(forbidden, -torch.inf), items.masked_fill(forbidden, 0)
        return scores, items


def cells(matrix: sparse.csr_matrix) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and values of a sparse matrix."""
    found = matrix.tocoo()
    return torch.from_numpy(found.row), torch.from_numpy(found.col), torch.from_numpy(found.data).float()
