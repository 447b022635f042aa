"""Scoring with a model and the current state of the catalogue: a frame of users in, frames of lists out.

A Top-N holds the model's own recommendations if the model knows an item of the history; among them are items that the user
bought before (``buy_again``). The fallbacks of ``scoring.ladder`` fill the remaining places. The last places may go to items
with few events (``explore``). The ``strategy`` of a row names the source of its item; for a user in a group, whose rules then
apply, it begins with the name of the group.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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
from headwater.scoring.exclusions import excluded_items
from headwater.scoring.ladder import Row
from headwater.scoring.places import Lists
from headwater.scoring.reasons import decisive_events
from headwater.scoring.sections import Sections
from headwater.scoring.taste import Taste
from headwater.scoring.users import Steps, Users
from headwater.scoring.vectors import of_newcomers


class Scorer:
    """Makes the lists of users. Each worker has a scorer and a ranker of its own.

    ``index``: the file of an index (``scoring.index``) that finds candidates, instead of a search of the whole catalogue.
    ``max_length``: the maximum number of events in a user's row, which holds the last ones; by default the model's.
    """

    def __init__(
        self,
        ranker: Ranker,
        catalogue: Catalogue,
        topn: Topn,
        index: Path | None = None,
        max_length: int | None = None,
    ) -> None:
        self.topn, self.catalogue = topn, catalogue
        self.max_length = max_length or ranker.max_length
        newcomers = of_newcomers(ranker, catalogue, topn.newcomers)
        device = torch.device("cuda" if on_gpu(topn.use_gpu) else "cpu")
        self.ranker = ranker.on(device).with_newcomers(*newcomers).with_recency(catalogue.popular)
        self.seed = zlib.crc32(json.dumps(ranker.facts, sort_keys=True, default=str).encode())
        self.groups = groups.resolve(topn, catalogue)
        self.names = np.array([group.name for group in self.groups], dtype=object)
        allowed = torch.zeros(self.ranker.size, dtype=torch.bool)
        allowed[: len(catalogue.available)] = torch.from_numpy(catalogue.available)
        self.candidates = Candidates(self.ranker, allowed, self._offsets(), index)
        self.width = max(group.variety.width(topn.n) for group in self.groups)
        self.categories = torch.from_numpy(catalogue.categories).long()
        self.little_known = {
            place: list(map(self.candidates.exact_index, exploration.little_known(group.catalogue, rule)))
            for place, group in enumerate(self.groups)
            if (rule := group.topn.explore).share
        }
        catalogues = {id(group.catalogue): group.catalogue for group in self.groups}
        made = {key: Sections(self.ranker, each, topn.sections, topn.wording) for key, each in catalogues.items()}
        self.sections = [made[id(group.catalogue)] for group in self.groups]

    def lists(self, frame: pd.DataFrame) -> pd.DataFrame:
        """All lists of some users, one row per place: user_id, section (0 is the Top-N) and the columns of ``places.PLACES``;
        the places of a list are consecutive.

        ``frame`` has one row per user: user_id, item_idx, event_type, at in epoch seconds, value, seen_items.
        """
        users, member, top = self.top(frame)
        rows = top.to_frame(users.ids, 0)
        if not self.topn.sections:
            return rows
        return pd.concat([rows, *self._further(users.also_excluding(top.item_idx), member)], ignore_index=True)

    def top(self, frame: pd.DataFrame) -> tuple[Users, np.ndarray, Lists]:
        """The users of ``frame`` (see ``lists``), each user's group (an index of ``groups``, int64 ``[users]``) and their
        Top-N."""
        users, now = self._users(frame)
        own = taste.mix(users.steps, self.catalogue)
        member = groups.assign(self.groups, users.steps, own, now)
        bonus = None
        if self.catalogue.intervals is not None:
            bonus = repeats.bonus(users.steps, self.catalogue.intervals, self.topn.repeat, now)
        query = self.ranker.query(users.history, users.context)
        weighted = self._with_popular_share(query, member)
        candidate_query = self.candidates.query(weighted, torch.from_numpy(member), bonus)
        scores, items = self._picked(candidate_query, users, member, own)
        items = items.masked_fill(users.history[:, -1:] == 0, 0)  # the model knows no item of the history
        lists = self._explained(users, query, weighted, member, scores, items)
        if bonus is not None:
            lists = self._with_repeats(lists, bonus, users.steps)
        lists = self._explored(self._filled(lists, users, member), candidate_query, users, member)
        prefix = np.array([f"{name}: " if name else "" for name in self.names], dtype=object)
        return users, member, replace(lists, strategy=prefix[member][:, None] + lists.strategy)

    def own_places(self, lists: Lists) -> tuple[Tensor, Tensor]:
        """The model's own items in a Top-N, and the items of their reasons: int64 ``[users, n]``, 0 elsewhere."""
        own = np.char.endswith(lists.strategy.astype(str), self.ranker.name)
        items, because = (torch.from_numpy(part * own) for part in (lists.item_idx, lists.because_idx))
        return items, because

    def _offsets(self) -> Tensor | None:
        """The score offsets of each group's rules, ``[items, groups]``; None if no group has any."""
        columns = torch.zeros(self.ranker.size, len(self.groups))
        for column, group in zip(columns.T, self.groups, strict=True):
            column[: len(self.catalogue.available)] += torch.from_numpy(group.offsets(self.catalogue))
        return columns if columns.any() else None

    def _users(self, frame: pd.DataFrame) -> tuple[Users, np.ndarray]:
        """The users, and for each the time up to which ages are counted, epoch seconds ``[users]``."""
        steps = Steps.of(frame)
        disliked = steps.disliked(self.topn.disliked_rating)
        history, context, liked = self.ranker.pad_steps(len(frame), steps.user, steps.item, steps.context(), ~disliked)
        may_name = liked.bool() & torch.from_numpy(self.catalogue.may_name(history.numpy()))
        seen = [np.asarray(items, dtype=np.int64) for items in frame["seen_items"]]
        now = np.maximum(self.catalogue.until, steps.newest())
        excluded = excluded_items(steps, seen, self.topn, now, self.max_length)
        return Users(frame["user_id"].to_numpy(), steps, history, context, may_name, seen, excluded), now

    def _with_popular_share(self, query: Query, member: np.ndarray) -> Query:
        """The query with the weight of popularity scaled by the ``popular_share`` of each user's group."""
        share = torch.tensor([group.topn.boosts.popular_share for group in self.groups])[member]
        return replace(query, users=torch.cat([query.users[:, :-1], query.users[:, -1:] * share.unsqueeze(1)], dim=1))

    def _picked(
        self, candidate_query: CandidateQuery, users: Users, member: np.ndarray, own: Taste
    ) -> tuple[Tensor, Tensor]:
        """The model's lists, re-ranked by the rules of each user's group: scores and items ``[users, n]``."""
        n = self.topn.n
        scores, items = self._best(candidate_query, users)
        picked = torch.full((len(users), n), -torch.inf), torch.zeros(len(users), n, dtype=torch.int64)
        for place, group in enumerate(self.groups):
            some = np.flatnonzero(member == place)
            width = group.variety.width(n)
            candidates = scores[some, :width], items[some, :width]
            theirs = own.of(some)
            mix = Mix(torch.from_numpy(theirs.categories), torch.from_numpy(theirs.shares))
            found = group.variety.pick(*candidates, n, self.ranker.directions, self.categories, mix)
            for whole, part in zip(picked, found, strict=True):
                whole[some] = part
        return picked

    def _best(self, candidate_query: CandidateQuery, users: Users) -> tuple[Tensor, Tensor]:
        """The candidates of each user: scores and items ``[users, width]``. If ``topn.max_repeats`` is set, at most that many
        are items that the user has seen."""
        scores, items = self.candidates.best(candidate_query, users.blocked(), self.width)
        if not self.topn.max_repeats:
            return scores, items
        repeated = users.have_seen(items)
        repeated &= repeated.cumsum(dim=1) <= self.topn.max_repeats
        new = self.candidates.best(candidate_query, users.excluding_seen().blocked(), self.width)
        scores = torch.cat([scores.masked_fill(~repeated, -torch.inf), new[0]], dim=1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        items = torch.cat([items, new[1]], dim=1).gather(1, order).masked_fill(scores == -torch.inf, 0)
        return scores[:, : self.width], items[:, : self.width]

    def _explained(
        self, users: Users, query: Query, weighted: Query, member: np.ndarray, scores: Tensor, items: Tensor
    ) -> Lists:
        """Lists of ``items``, each with the event behind it, if there is one. None is named if popularity alone would list
        the item and is most of its score: users would not take such an item for a consequence of their actions."""
        traces = query.evidence.traces(items)
        own = self.ranker.scores_of(items, query, traces)
        part = self.ranker.history_part(items, own, query)
        place = decisive_events(self.ranker, items, own, traces, part, users.history, users.context, users.may_name)
        popular = self._popular(users, weighted, member, items, part)
        because_idx, because_type = users.events_at(place.masked_fill((items == 0) | popular, -1))
        return Lists.of(
            items.numpy(),
            score=scores.numpy(),
            strategy=self.ranker.name,
            because_idx=because_idx,
            because_type=because_type,
            otherwise=np.where(popular.numpy(), self.topn.wording.popular, self.topn.wording.history),
        )

    def _popular(
        self, users: Users, weighted: Query, member: np.ndarray, items: Tensor, history_part: Tensor
    ) -> Tensor:
        """Bool ``[users, n]``: which of the items would be listed for popularity alone, whatever the user did, and get more of
        their score from it, with its weight in ``weighted``, than from the history (``history_part``). After a single event
        nobody can tell how much that is: a sequence model, too, gives popular items to whoever it knows little of."""
        anyway = np.zeros(items.shape, dtype=bool)
        for place, group in enumerate(self.groups):
            some = np.flatnonzero(member == place)
            anyway[some] = group.ladder.listed_anyway(items.numpy()[some], [users.excluded[user] for user in some])
        popularity_part = weighted.users[:, -1:] * self.ranker.recency[items]
        most = popularity_part > history_part.clamp(min=0)
        most |= ((users.history > 0).sum(dim=1) == 1).unsqueeze(1)
        return most & torch.from_numpy(anyway)

    def _with_repeats(self, lists: Lists, bonus: sparse.csr_matrix, steps: Steps) -> Lists:
        """The lists with strategy ``buy_again`` and another reason for items with a repeat bonus: the user's last event with
        the item among ``topn.repeat.event_types``."""
        items = lists.item_idx
        known = np.where(items < bonus.shape[1], items, 0)
        rows = np.repeat(np.arange(len(items)), items.shape[1])
        gained = np.asarray(bonus[rows, known.ravel()]).reshape(items.shape)
        user, column = np.nonzero(gained > 0)
        bought = items[user, column]
        meant = steps.of_types(self.topn.repeat.event_types)
        newest = dict(zip(zip(steps.user[meant], steps.item[meant], strict=True), steps.type[meant], strict=True))
        types = [newest[pair] for pair in zip(user, bought, strict=True)]
        return lists.with_values((user, column), strategy="buy_again", because_idx=bought, because_type=types)

    def _filled(self, lists: Lists, users: Users, member: np.ndarray) -> Lists:
        """The lists with empty places at their ends filled from the ladder; item 0 stays if no item is left."""
        gaps = lists.item_idx == 0
        if not gaps.any():
            return lists
        steps, types = users.steps.items(), users.steps.types()
        excluded = [users.excluding_seen().excluded, users.excluded] if self.topn.max_repeats else [users.excluded]
        rows: list[Row] = []
        for user in np.flatnonzero(gaps.any(axis=1)):
            listed, ladder = lists.item_idx[user][~gaps[user]], self.groups[member[user]].ladder
            lowest = float(lists.score[user, len(listed) - 1]) if len(listed) else 0.0
            theirs = [items_of_users[user] for items_of_users in excluded]
            rows += ladder.fill(listed, lowest, theirs, steps[user], types[user], int(gaps[user].sum()))
        return lists.with_values(gaps, **dict(zip(Row._fields, zip(*rows, strict=True), strict=True)))

    def _explored(self, lists: Lists, candidate_query: CandidateQuery, users: Users, member: np.ndarray) -> Lists:
        """The lists with the last places of full lists given to items with few events, by the rules of each group."""
        n = self.topn.n
        for place, halves in self.little_known.items():
            some = np.flatnonzero((member == place) & (lists.item_idx > 0).all(axis=1))
            if not len(some):
                continue
            listed, score = lists.item_idx[some], lists.score[some]
            blocked = users.of(some).excluding_seen().also_excluding(listed).blocked()
            theirs, many = candidate_query.of(torch.from_numpy(some)), exploration.CANDIDATES // len(halves)
            found = torch.cat([self.candidates.best(theirs, blocked, many, half)[1] for half in halves], dim=1)
            seed = exploration.seeds(users.ids[some], users.steps.newest()[some], self.seed)
            rules, fit = self.groups[place].topn, found.numpy()
            if rules.max_per_category:
                given = math.ceil(rules.explore.share * n)
                fit = exploration.within_cap(fit, listed, self.catalogue.categories, rules.max_per_category, given)
            drawn = exploration.draw(seed, fit, rules.explore.share, n)
            user, column = np.nonzero(drawn.items)
            first = n - np.count_nonzero(drawn.items, axis=1)[user]
            lists = lists.with_values(some, propensity=drawn.propensity).with_values(
                (some[user], column),
                item_idx=drawn.items[user, column],
                score=score[user, first] - (column - first),
                strategy="explore",
                because_idx=0,
                because_type=0,
                otherwise=self.topn.wording.explore,
            )
        return lists

    def _further(self, users: Users, member: np.ndarray) -> Iterator[pd.DataFrame]:
        """The sections of users whose Top-N is complete and part of ``users.excluded``."""
        for sections in {id(made): made for made in self.sections}.values():
            theirs = np.array([made is sections for made in self.sections])
            some = np.flatnonzero(theirs[member])
            if len(some):
                yield from sections.lists(users if len(some) == len(users) else users.of(some))
