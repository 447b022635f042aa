"""A model opened for scoring, with the catalogue's state beside it: frames of users in, frames of lists out.

A Top-N is filled from a ladder, and each row says by its ``strategy`` on which rung it stands: the model's own, for users
with a history that it knows (among these ``buy_again``, what a user bought before); what is popular in the categories of a
history that it does not know yet; what is popular.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from headwater.config import Topn
from headwater.models.ranker import Ranker
from headwater.models.variety import Variety
from headwater.schemas import EVENT_TYPES
from headwater.scoring.candidates import Candidates
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.exclusions import left_out
from headwater.scoring.ladder import LATELY, Ladder, Row
from headwater.scoring.reasons import decisive_events
from headwater.scoring.repeats import bonus
from headwater.scoring.sections import Sections
from headwater.scoring.users import Steps, Users
from headwater.scoring.vectors import of_newcomers


class Scorer:
    """See above. Made once by each task; what is popular is told to the ranker."""

    def __init__(self, ranker: Ranker, catalogue: Catalogue, topn: Topn) -> None:
        torch.set_num_threads(1)  # Spark runs a worker per core
        self.topn, self.catalogue = topn, catalogue
        self.ranker = ranker.with_newcomers(of_newcomers(ranker, catalogue)).with_recency(catalogue.popular)
        allowed = torch.zeros(len(self.ranker.matrix), dtype=torch.bool)
        allowed[: len(catalogue.available)] = torch.from_numpy(catalogue.available)
        self.candidates = Candidates(self.ranker, allowed)
        self.categories = torch.from_numpy(catalogue.categories).long()
        self.ladder = Ladder(catalogue, topn.max_per_category)
        self.sections = Sections(self.ranker, catalogue, topn.sections)

    def lists(self, frame: pd.DataFrame) -> pd.DataFrame:
        """All lists of some users (user_id, item_idx, event_type, at in epoch seconds, seen_items): a frame with the
        columns of ``LISTS``."""
        users = self._users(frame)
        top, items = self._top(users)
        if not self.topn.sections:
            return top
        return pd.concat([top, *self.sections.lists(users.having_seen(items))], ignore_index=True)

    def _users(self, frame: pd.DataFrame) -> Users:
        steps = Steps.of(frame)
        history, kinds = self.ranker.pad(steps.items(), steps.types())
        seen = [np.asarray(items, dtype=np.int64) for items in frame["seen_items"]]
        now = np.maximum(self.catalogue.until, steps.newest())
        seen = left_out(steps, seen, self.topn, now, self.ranker.max_length)
        return Users(frame["user_id"].to_numpy(), steps, history, kinds, seen)

    def _top(self, users: Users) -> tuple[pd.DataFrame, np.ndarray]:
        """The Top-N of each user, as rows and as items ``[users, n]``."""
        n = self.topn.n
        variety = Variety.of(self.topn)
        again = self._again(users.steps)
        scores, items = self.candidates.lists(
            users.history, users.types, users.blocked(), n, variety, self.categories, again
        )
        items = items.masked_fill(users.history[:, -1:] == 0, 0)  # nothing in the history that the model knows
        place = decisive_events(self.ranker, items, users.history, users.types)
        place = torch.where(items > 0, place, -1)
        frame = users.rows(0, items, scores)
        frame["strategy"] = self.ranker.name
        frame["because_idx"], frame["because_type"] = users.events_at(place)
        frame["otherwise"] = LATELY if self.ranker.transitions is not None else "fits what you did so far"
        if again is not None:
            self._say_again(frame, again)
        filled = self._fill(items.numpy(), scores.numpy(), users)
        gaps = (frame["item_idx"] == 0).to_numpy()
        for name, values in filled.items():
            column = frame[name].to_numpy(copy=True)
            column[gaps] = values
            frame[name] = column
        return frame[frame["item_idx"] > 0], frame["item_idx"].to_numpy().reshape(-1, n)

    def _again(self, steps: Steps) -> sparse.csr_matrix | None:
        """What buying again adds to scores, ``[users, items]``."""
        if self.catalogue.again is None:
            return None
        now = np.maximum(self.catalogue.until, steps.newest())
        return bonus(steps, self.catalogue.again, self.topn.repeat, now)

    def _say_again(self, frame: pd.DataFrame, again: sparse.csr_matrix) -> None:
        """Let the rows of what was bought before say so."""
        item = frame["item_idx"].to_numpy()
        user = np.arange(len(frame)) // self.topn.n
        known = np.where(item < again.shape[1], item, 0)
        bought = np.asarray(again[user, known]).ravel() > 0
        frame.loc[bought, "strategy"] = "buy_again"
        frame.loc[bought, "because_idx"] = item[bought]
        frame.loc[bought, "because_type"] = EVENT_TYPES.index(self.topn.repeat.event_types[0]) + 1

    def _fill(self, items: np.ndarray, scores: np.ndarray, users: Users) -> dict[str, list[object]]:
        """What fills the gaps at the end of the lists ``[users, n]``, by column, in reading order; item 0 where nothing
        is left."""
        rows = []
        steps, types = users.steps.items(), users.steps.types()
        for user in np.flatnonzero((items == 0).any(axis=1)):
            listed = items[user][items[user] > 0]
            lowest = float(scores[user, len(listed) - 1]) if len(listed) else 0.0
            rows += self.ladder.fill(
                listed, lowest, users.seen[user], steps[user], types[user], items.shape[1] - len(listed)
            )
        return {name: [row[k] for row in rows] for k, name in enumerate(Row._fields)}
