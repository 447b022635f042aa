"""A model opened for scoring, with the catalogue's state beside it: frames of users in, frames of lists out.

A Top-N is filled from a ladder, and each row says by its ``strategy`` on which rung it stands: the model's own, for users
with a history that it knows (among these ``buy_again``, what a user bought before); then ``scoring.ladder``. The last places
may be given to items that little is known of (``explore``). A user in a group has rows by the group's rules, whose name
stands before the rung.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from headwater.config import Topn
from headwater.device import on_gpu
from headwater.models.ranker import Query, Ranker
from headwater.models.variety import Mix
from headwater.scoring import exploration, groups, repeats, taste
from headwater.scoring.candidates import CandidateQuery, Candidates
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.exclusions import left_out
from headwater.scoring.ladder import LATELY, Row
from headwater.scoring.reasons import decisive_events
from headwater.scoring.sections import Sections
from headwater.scoring.taste import Taste
from headwater.scoring.users import Steps, Users
from headwater.scoring.vectors import of_newcomers


class Scorer:
    """See above. Made once by each task, with a ranker of its own. ``index``: a file to find candidates by (``scoring.index``)
    instead of going through the whole catalogue."""

    def __init__(self, ranker: Ranker, catalogue: Catalogue, topn: Topn, index: Path | None = None) -> None:
        self.topn, self.catalogue = topn, catalogue
        newcomers = of_newcomers(ranker, catalogue, topn.newcomers)
        device = torch.device("cuda" if on_gpu(topn.use_gpu) else "cpu")
        self.ranker = ranker.on(device).with_newcomers(newcomers).with_recency(catalogue.popular)
        self.seed = zlib.crc32(json.dumps(ranker.facts, sort_keys=True, default=str).encode())
        self.groups = groups.resolve(topn, catalogue)
        allowed = torch.zeros(self.ranker.size, dtype=torch.bool)
        allowed[: len(catalogue.available)] = torch.from_numpy(catalogue.available)
        self.candidates = Candidates(self.ranker, allowed, self._added(), index)
        self.width = max(group.variety.width(topn.n) for group in self.groups)
        self.categories = torch.from_numpy(catalogue.categories).long()
        self.little_known = {
            place: self.candidates.some(torch.from_numpy(exploration.little_known(group.catalogue, rule)))
            for place, group in enumerate(self.groups)
            if (rule := group.topn.explore).share
        }
        shared = Sections(self.ranker, catalogue, topn.sections)
        self.sections = [
            shared if group.catalogue is catalogue else Sections(self.ranker, group.catalogue, topn.sections)
            for group in self.groups
        ]

    def lists(self, frame: pd.DataFrame) -> pd.DataFrame:
        """All lists of some users (user_id, item_idx, event_type, at in epoch seconds, value, seen_items): user_id, section
        (0 is the Top-N) and the columns of ``lists.PLACES``, the places of a list one after the other."""
        users, now = self._users(frame)
        own = taste.mix(users.steps, self.catalogue)
        member = groups.assign(self.groups, users.steps, own, now)
        top, items = self._top(users, member, own, now)
        if not self.topn.sections:
            return top
        users = users.having_seen(items)
        return pd.concat([top, *self._further(users, member)], ignore_index=True)

    def groups_of(self, frame: pd.DataFrame) -> np.ndarray:
        """The name of each user's group, empty for those in none, ``[users]``."""
        users, now = self._users(frame)
        member = groups.assign(self.groups, users.steps, taste.mix(users.steps, self.catalogue), now)
        return np.array([group.name for group in self.groups], dtype=object)[member]

    def _added(self) -> Tensor | None:
        """What the rules of each group add to scores, ``[items, groups]``; None where no group adds anything."""
        columns = torch.zeros(self.ranker.size, len(self.groups))
        for column, group in zip(columns.T, self.groups, strict=True):
            column[: len(self.catalogue.available)] += torch.from_numpy(group.added(self.catalogue))
        return columns if columns.any() else None

    def _users(self, frame: pd.DataFrame) -> tuple[Users, np.ndarray]:
        """The users, and for each the moment that ages are counted up to, epoch seconds ``[users]``."""
        steps = Steps.of(frame)
        history, context = self.ranker.pad_steps(steps.user, steps.item, steps.context(), len(frame))
        had = [np.asarray(items, dtype=np.int64) for items in frame["seen_items"]]
        now = np.maximum(self.catalogue.until, steps.newest())
        seen = left_out(steps, had, self.topn, now, self.ranker.max_length)
        return Users(frame["user_id"].to_numpy(), steps, history, context, had, seen), now

    def _top(self, users: Users, member: np.ndarray, own: Taste, now: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        """The Top-N of each user, as rows and as items ``[users, n]``."""
        again = None
        if self.catalogue.again is not None:
            again = repeats.bonus(users.steps, self.catalogue.again, self.topn.repeat, now)
        query = self.ranker.query(users.history, users.context)
        shared = self._with_share(query, member)
        asked = self.candidates.ask(shared, torch.from_numpy(member), again)
        scores, items = self._picked(asked, users, member, own)
        items = items.masked_fill(users.history[:, -1:] == 0, 0)  # nothing in the history that the model knows
        frame = self._explained(users, query, shared, member, scores, items)
        if again is not None:
            self._say_again(frame, again, users.steps)
        self._fill(frame, users, member)
        self._explore(frame, asked, users, member)
        names = np.array([f"{group.name}: " if group.name else "" for group in self.groups], dtype=object)
        frame["strategy"] = names[member].repeat(self.topn.n) + frame["strategy"].to_numpy(dtype=object)
        return frame[frame["item_idx"] > 0], _by_user(frame, self.topn.n)

    def _with_share(self, query: Query, member: np.ndarray) -> Query:
        """The query with as much of what is popular as the rules of each user's group leave."""
        share = torch.tensor([group.topn.boosts.popular_share for group in self.groups])[member]
        return replace(query, users=torch.cat([query.users[:, :-1], query.users[:, -1:] * share.unsqueeze(1)], dim=1))

    def _picked(self, asked: CandidateQuery, users: Users, member: np.ndarray, own: Taste) -> tuple[Tensor, Tensor]:
        """The model's lists by the rules of each user's group: scores and items ``[users, n]``."""
        n = self.topn.n
        scores, items = self._best(asked, users)
        picked = torch.full((len(users), n), -torch.inf), torch.zeros(len(users), n, dtype=torch.int64)
        for place, group in enumerate(self.groups):
            some = np.flatnonzero(member == place)
            width = group.variety.width(n)
            candidates = scores[some, :width], items[some, :width]
            theirs = own.of(some)
            mix = Mix(torch.from_numpy(theirs.categories), torch.from_numpy(theirs.shares))
            found = group.variety.pick(*candidates, n, self.ranker.unit, self.categories, mix)
            for whole, part in zip(picked, found, strict=True):
                whole[some] = part
        return picked

    def _best(self, asked: CandidateQuery, users: Users) -> tuple[Tensor, Tensor]:
        """The candidates of each user: scores and items ``[users, width]``, with ``topn.max_repeats`` no more than so many
        that the user had before."""
        scores, items = self.candidates.best(asked, users.blocked(), self.width)
        if not self.topn.max_repeats:
            return scores, items
        again = users.have_had(items)
        again &= again.cumsum(dim=1) <= self.topn.max_repeats
        new = self.candidates.best(asked, users.having_enough().blocked(), self.width)
        scores = torch.cat([scores.masked_fill(~again, -torch.inf), new[0]], dim=1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        items = torch.cat([items, new[1]], dim=1).gather(1, order).masked_fill(scores == -torch.inf, 0)
        return scores[:, : self.width], items[:, : self.width]

    def _explained(
        self, users: Users, query: Query, shared: Query, member: np.ndarray, scores: Tensor, items: Tensor
    ) -> pd.DataFrame:
        """Rows of lists ``[users, n]``, each with the event behind it; without one where popularity is enough for the place
        and most of the score, which nobody would take for a consequence of what they did."""
        traces = query.evidence.traces(items)
        own = self.ranker.scores_of(items, query, traces)
        place = decisive_events(self.ranker, items, own, traces, users.history, users.context)
        popular = self._popular(users, query, shared, member, items, own)
        place = place.masked_fill((items == 0) | popular, -1)
        frame = users.rows(0, items, scores)
        frame["strategy"] = self.ranker.name
        frame["because_idx"], frame["because_type"] = users.events_at(place)
        frame["otherwise"] = np.where(popular.flatten().numpy(), LATELY, "fits what you did so far")
        return frame

    def _popular(
        self, users: Users, query: Query, shared: Query, member: np.ndarray, items: Tensor, scores: Tensor
    ) -> Tensor:
        """Which of the items ``[users, n]`` owe most of their score by ``query`` to popularity, and would be listed for it
        whatever a user did: bool of the same shape."""
        if not self.ranker.blend.get("recency"):
            return torch.zeros(items.shape, dtype=torch.bool)
        anyway = np.zeros(items.shape, dtype=bool)
        for place, group in enumerate(self.groups):
            some = np.flatnonzero(member == place)
            anyway[some] = group.ladder.stands_anyway(items.numpy()[some], [users.seen[user] for user in some])
        everybodys = shared.users[:, -1:] * self.ranker.recency[items]
        most = everybodys > self.ranker.own_part(items, scores, query).clamp(min=0)
        return most & torch.from_numpy(anyway)

    def _say_again(self, frame: pd.DataFrame, again: sparse.csr_matrix, steps: Steps) -> None:
        """Let the rows of what was bought before say so, by what of it the user did last."""
        item = frame["item_idx"].to_numpy()
        user = np.arange(len(frame)) // self.topn.n
        known = np.where(item < again.shape[1], item, 0)
        bought = np.asarray(again[user, known]).ravel() > 0
        meant = steps.of_types(self.topn.repeat.event_types)
        newest = dict(zip(zip(steps.user[meant], steps.item[meant], strict=True), steps.type[meant], strict=True))
        rows = np.flatnonzero(bought)
        types = [newest[pair] for pair in zip(user[rows], item[rows], strict=True)]
        _put(frame, rows, {"strategy": "buy_again", "because_idx": item[rows], "because_type": types})

    def _fill(self, frame: pd.DataFrame, users: Users, member: np.ndarray) -> None:
        """Fill the gaps at the end of lists from the ladder; item 0 stays where nothing is left."""
        items, scores = _by_user(frame, self.topn.n), frame["score"].to_numpy().reshape(len(users), -1)
        if items.all():
            return
        steps, types = users.steps.items(), users.steps.types()
        taken = [users.having_enough().seen, users.seen] if self.topn.max_repeats else [users.seen]
        rows: list[Row] = []
        for user in np.flatnonzero((items == 0).any(axis=1)):
            listed = items[user][items[user] > 0]
            lowest = float(scores[user, len(listed) - 1]) if len(listed) else 0.0
            ladder, missing = self.groups[member[user]].ladder, items.shape[1] - len(listed)
            out = [items_of_users[user] for items_of_users in taken]
            rows += ladder.fill(listed, lowest, out, steps[user], types[user], missing)
        _put(
            frame,
            np.flatnonzero(items.ravel() == 0),
            {name: [row[k] for row in rows] for k, name in enumerate(Row._fields)},
        )

    def _explore(self, frame: pd.DataFrame, asked: CandidateQuery, users: Users, member: np.ndarray) -> None:
        """Give the last places of full lists to items that little is known of, as the rules of a group say."""
        n = self.topn.n
        for place, among in self.little_known.items():
            items, scores = _by_user(frame, n), frame["score"].to_numpy().reshape(-1, n)
            some = np.flatnonzero((member == place) & (items > 0).all(axis=1))
            if not len(some):
                continue
            blocked = users.of(some).having_enough().having_seen(items[some]).blocked()
            _, found = self.candidates.best(asked.of(torch.from_numpy(some)), blocked, exploration.TO_DRAW_FROM, among)
            seed = exploration.seeds(users.ids[some], users.steps.newest()[some], self.seed)
            rules, fit = self.groups[place].topn, found.numpy()
            if rules.max_per_category:
                given = math.ceil(rules.explore.share * n)
                fit = exploration.with_room(fit, items[some], self.catalogue.categories, rules.max_per_category, given)
            drawn = exploration.draw(seed, fit, rules.explore.share, n)
            frame.loc[_rows_of(some, n), "propensity"] = drawn.propensity.ravel()
            user, column = np.nonzero(drawn.items)
            first = n - np.count_nonzero(drawn.items, axis=1)[user]
            put = {
                "item_idx": drawn.items[user, column],
                "score": scores[some[user], first] - (column - first),
                "strategy": "explore",
                "because_idx": 0,
                "because_type": 0,
                "otherwise": "seen by few so far",
            }
            _put(frame, some[user] * n + column, put)

    def _further(self, users: Users, member: np.ndarray) -> Iterator[pd.DataFrame]:
        """The sections of users who have their Top-N behind them."""
        for sections in {id(made): made for made in self.sections}.values():
            theirs = np.array([made is sections for made in self.sections])
            some = np.flatnonzero(theirs[member])
            if len(some):
                yield from sections.lists(users if len(some) == len(users) else users.of(some))


def _by_user(frame: pd.DataFrame, n: int) -> np.ndarray:
    """The items of a frame of lists, ``[users, n]``."""
    return frame["item_idx"].to_numpy().reshape(-1, n)


def _rows_of(users: np.ndarray, n: int) -> np.ndarray:
    """The rows of some users in a frame of lists."""
    return (users[:, None] * n + np.arange(n)).ravel()


def _put(frame: pd.DataFrame, rows: np.ndarray, values: Mapping[str, Any]) -> None:
    """Write values into some rows of a frame, column by column."""
    for name, some in values.items():
        column = frame[name].to_numpy(copy=True)
        column[rows] = some
        frame[name] = column
