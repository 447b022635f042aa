"""A model opened for scoring, with the catalogue's state beside it: frames of users in, frames of lists out.

A Top-N is filled from a ladder, and each row says by its ``strategy`` on which rung it stands: the model's own, for users
with a history that it knows; what is popular in the categories of a history that it does not know yet; what is popular.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from headwater.config import Topn
from headwater.models.ranker import Ranker
from headwater.models.variety import Variety
from headwater.schemas import EVENT_TYPES
from headwater.scoring.candidates import Candidates
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.reasons import decisive_events
from headwater.scoring.sections import Sections
from headwater.scoring.users import Users

LATELY = "popular lately"


class Scorer:
    """See above. Made once by each task; what is popular is told to the ranker."""

    def __init__(self, ranker: Ranker, catalogue: Catalogue, topn: Topn) -> None:
        torch.set_num_threads(1)  # Spark runs a worker per core
        self.topn, self.catalogue = topn, catalogue
        self.ranker = ranker.with_recency(catalogue.popular)
        allowed = torch.zeros(self.ranker.n_items + 1, dtype=torch.bool)
        known = min(len(catalogue.available), len(allowed))
        allowed[:known] = torch.from_numpy(catalogue.available[:known])
        self.candidates = Candidates(self.ranker, allowed)
        self.popular = catalogue.by_popularity()
        self.sections = Sections(self.ranker, catalogue, topn.sections)

    def lists(self, frame: pd.DataFrame) -> pd.DataFrame:
        """All lists of some users (user_id, item_idx, event_type, seen_items): a frame with the columns of ``LISTS``."""
        types = [[EVENT_TYPES.index(name) + 1 for name in names] for names in frame["event_type"]]
        history, kinds = self.ranker.pad(frame["item_idx"], types)
        seen = [np.asarray(items if self.topn.exclude_seen else [], dtype=np.int64) for items in frame["seen_items"]]
        users = Users(frame["user_id"].to_numpy(), list(frame["item_idx"]), history, kinds, seen)
        top, items = self._top(users)
        if not self.topn.sections:
            return top
        return pd.concat([top, *self.sections.lists(users.having_seen(items))], ignore_index=True)

    def _top(self, users: Users) -> tuple[pd.DataFrame, np.ndarray]:
        """The Top-N of each user, as rows and as items ``[users, n]``."""
        n = self.topn.n
        scores, items = self.candidates.lists(users.history, users.types, users.blocked(), n, Variety.of(self.topn))
        items = items.masked_fill(users.history[:, -1:] == 0, 0)  # nothing in the history that the model knows
        place = decisive_events(self.ranker, items, users.history, users.types)
        place = torch.where(items > 0, place, -1)
        frame = users.rows(0, items, scores)
        frame["strategy"] = self.ranker.name
        frame["because_idx"], frame["because_type"] = users.events_at(place)
        frame["otherwise"] = LATELY if self.ranker.transitions is not None else "fits what you did so far"
        filled = self._fill(items.numpy(), scores.numpy(), users)
        gaps = (frame["item_idx"] == 0).to_numpy()
        for name, values in filled.items():
            column = frame[name].to_numpy(copy=True)
            column[gaps] = values
            frame[name] = column
        return frame[frame["item_idx"] > 0], frame["item_idx"].to_numpy().reshape(-1, n)

    def _fill(self, items: np.ndarray, scores: np.ndarray, users: Users) -> dict[str, list[object]]:
        """What fills the gaps at the end of the lists ``[users, n]``, by column, in reading order.

        Nothing that is seen or listed; item 0 where nothing is left. A filled row scores one less than the row above,
        so that a list's scores never rise.
        """
        rows: list[tuple[int, float, str, str]] = []
        for user in np.flatnonzero((items == 0).any(axis=1)):
            listed = items[user][items[user] > 0]
            taken = {*listed.tolist(), *users.seen[user].tolist()}
            score = float(scores[user, len(listed) - 1]) if len(listed) else 0.0
            until = len(rows) + items.shape[1] - len(listed)
            for item, strategy, why in self._ladder(users.steps[user]):
                if len(rows) == until:
                    break
                if item not in taken:
                    taken.add(item)
                    score -= 1.0
                    rows.append((item, score, strategy, why))
            rows += [(0, 0.0, "", "")] * (until - len(rows))
        return {name: [row[k] for row in rows] for k, name in enumerate(("item_idx", "score", "strategy", "otherwise"))}

    def _ladder(self, history: np.ndarray) -> Iterator[tuple[int, str, str]]:
        """Item, strategy and reason: what is popular in the categories of a history, the most frequent first, then
        what is popular anywhere."""
        for code in self.catalogue.categories_of(history):
            for item in self.catalogue.popular_in[code]:
                yield int(item), "category_popular", f"popular in {self.catalogue.names[code]}"
        for item in self.popular:
            yield int(item), "recent_popular", LATELY
