"""One evaluation from tables to metrics: the held-out users, and the results of a model and the baselines on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, get_args

import numpy as np
from pyspark.sql import DataFrame
from torch import Tensor

from headwater import popularity
from headwater.config import Baseline, Config
from headwater.evaluation import baselines, cases
from headwater.evaluation.cases import HeldOut
from headwater.evaluation.measure import Measured, measure, measure_lists
from headwater.evaluation.ranking import AS_RANKED, Scores
from headwater.models.ranker import Ranker
from headwater.models.variety import Variety
from headwater.training.facts import parse_time

SPLITS = ("validation", "test")
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
SEQUENCE_MODEL = "sequence_model"
"""The name of a hybrid's sequence model, measured separately from the whole."""


@dataclass(frozen=True)
class Split:
    """The data of a training run: the steps before the validation part (``training``), those before the test part
    (``until_test``), and the validation cases (``evaluation.cases``). Both cuts are None with ``leave_one_out``."""

    training: DataFrame
    until_test: DataFrame
    validation: DataFrame
    train_until: datetime | None = None
    validation_until: datetime | None = None


def split(steps: DataFrame, config: Config) -> Split:
    """Split steps (``sequences.filter_steps``) by ``evaluate.protocol``. Raises HeadwaterError if a temporal split has no
    steps or too short a time span."""
    asked = config.evaluate
    how = (config.sequence.max_length, config.topn.exclude_seen, asked.targets)
    if asked.protocol == "leave_one_out":
        held = cases.leave_one_out(steps, 2, *how)
        return Split(cases.without_last(steps, 2), cases.without_last(steps, 1), held)
    first, second = cases.cuts(steps, asked.test_fraction, asked.validation_fraction, asked.max_days)
    held = cases.temporal(steps, first, second, *how)
    return Split(cases.before(steps, first), cases.before(steps, second), held, first, second)


class Evaluation:
    """One split of one protocol over pinned steps (``sequences.filter_steps``); measures any model on the same users.

    ``facts``: ``protocol``, ``train_until`` and ``validation_until`` of the model whose cuts are used. With
    ``leave_one_out``, events before ``validation_until``, if it is set, are not targets (``unseen_cut``).
    """

    def __init__(self, steps: DataFrame, n_items: int, facts: dict[str, Any], split: str, config: Config) -> None:
        assert split in SPLITS
        self.config, self.n_items, self.protocol = config, n_items, facts["protocol"]
        length, exclude = config.sequence.max_length, config.topn.exclude_seen
        targets = config.evaluate.targets
        if self.protocol == "temporal":
            train_until, validation_until = (
                datetime.fromisoformat(facts[key]) for key in ("train_until", "validation_until")
            )
            start, end = (train_until, validation_until) if split == "validation" else (validation_until, None)
            held = cases.temporal(steps, start, end, length, exclude, targets)
            self.before = cases.before(steps, start)
        else:
            place = 2 if split == "validation" else 1
            held = cases.leave_one_out(steps, place, length, exclude, targets, parse_time(facts["validation_until"]))
            self.before = cases.without_last(steps, place)
        self.held: HeldOut = cases.collect(held, config.evaluate.max_users)
        self.before = self.before.persist()
        self.counts = baselines.event_counts(self.before, n_items)

    def model(self, ranker: Ranker) -> Measured:
        """A model version with the popularity at the time of the split, and lists re-ranked for variety as when served."""
        ranker = ranker.with_recency(self.decayed)

        def scores(items: list[np.ndarray], context: list[np.ndarray]) -> Any:
            return ranker.scores(*ranker.pad(items, context))

        return self._measure(scores, ranker.unit_vectors, Variety.of(self.config.topn))

    @property
    def baseline_names(self) -> tuple[Baseline, ...]:
        """Those of ``BASELINES`` that apply: without ``own_items`` if lists leave out items that the user has seen."""
        return tuple(name for name in BASELINES if name != "own_items" or not self.config.topn.exclude_seen)

    def baseline(self, name: Baseline) -> Measured:
        """One of ``BASELINES``, from the events before the split."""
        made: dict[Baseline, Callable[[], Scores]] = {
            "popularity": lambda: baselines.by_count(self.counts),
            "recent_popularity": lambda: baselines.by_count(self._recent_counts()),
            "item_transitions": lambda: baselines.by_transitions(
                baselines.transitions(self.before, self.n_items), self.counts
            ),
            "own_items": lambda: baselines.by_own(self.counts),
        }
        return self._measure(made[name]())

    @cached_property
    def until(self) -> float:
        """The time of the newest event before the split, in epoch seconds."""
        return popularity.newest_second(self.before)

    @cached_property
    def decayed(self) -> np.ndarray:
        """Decayed event counts before the split, the same for every version that is measured."""
        return popularity.decayed(self.before, self.n_items, self.config.topn.popular_half_life_days, self.until)

    def lists(self, lists: np.ndarray, group: np.ndarray, unit: np.ndarray, further: Mapping[str, float]) -> Measured:
        """Measures lists ``[users, n]`` as served, given each user's ``group`` and ``further`` metrics (``measure_lists``)."""
        ks = list(self.config.evaluate.k)
        return measure_lists(lists, self.held, ks, self.counts, unit=unit, group=group, further=further)

    def _recent_counts(self) -> np.ndarray:
        since = datetime.fromtimestamp(self.until, UTC) - timedelta(days=self.config.evaluate.recent_days)
        return baselines.event_counts(self.before, self.n_items, since)

    def _measure(self, scores: Scores, unit: Tensor | None = None, variety: Variety = AS_RANKED) -> Measured:
        return measure(scores, self.held, list(self.config.evaluate.k), self.counts, unit=unit, variety=variety)


def unseen_cut(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The facts by which to test several versions, given the ``facts`` of each, so that none was trained on a test event: the
    latest cut; and if any of them used ``leave_one_out``, which leaves only each user's last event unseen, only last events
    after that cut."""
    latest = max(facts, key=lambda each: each["validation_until"] or "")
    left_out = any(each["protocol"] == "leave_one_out" for each in facts)
    return {**latest, "protocol": "leave_one_out"} if left_out else latest
