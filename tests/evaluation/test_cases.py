"""Held-out cases: nothing from the future in a history, targets by the protocol."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch
from pyspark.sql import functions as F
from torch.utils._python_dispatch import TorchDispatchMode

from headwater.errors import HeadwaterError
from headwater.evaluation import cases
from headwater.evaluation.protocol import unseen_cut
from headwater.evaluation.ranking import UNRANKED, rank
from headwater.models.variety import Variety

START = datetime(2025, 1, 1, tzinfo=UTC)


INGESTED = START + timedelta(days=1_000)


def steps(spark, *rows, ingested=INGESTED):
    full = [(user, START + timedelta(days=day), event, item, "view", None, ingested) for user, day, event, item in rows]
    ddl = "user_id string, event_time timestamp, event_id string, item_idx int, event_type string, value double"
    return spark.createDataFrame(full, f"{ddl}, ingested_at timestamp")


def collected(frame):
    held = cases.collect(frame, 100)
    return {
        user: (held.items[k].tolist(), held.seen[k].tolist(), held.targets[k].tolist(), int(held.events_before[k]))
        for k, user in enumerate(held.users)
    }


ROWS = [
    ("u", 1, "a", 1), ("u", 2, "b", 2), ("u", 5, "c", 1), ("u", 6, "d", 3), ("u", 9, "e", 4),
    ("new", 6, "f", 2), ("past", 1, "g", 5), ("again", 1, "h", 7), ("again", 6, "i", 7),
]  # fmt: skip


def test_a_temporal_history_is_before_the_cut_and_targets_are_in_the_window(spark):
    cut, end = START + timedelta(days=4), START + timedelta(days=8)
    found = collected(cases.temporal(steps(spark, *ROWS), cut, end, 10, exclude_seen=True))
    assert found == {"u": ([1, 2], [1, 2], [3], 2), "new": ([], [], [2], 0)}


def test_without_exclusion_a_repeated_item_is_a_target_and_nothing_is_left_out(spark):
    cut = START + timedelta(days=4)
    found = collected(cases.temporal(steps(spark, *ROWS), cut, None, 1, exclude_seen=False))
    assert found["u"] == ([2], [], [1, 3, 4], 2)
    assert found["again"] == ([7], [], [7], 1)


def test_leave_one_out_takes_the_last_event_and_validates_on_the_one_before(spark):
    assert collected(cases.leave_one_out(steps(spark, *ROWS), 1, 10, True))["u"] == ([1, 2, 1, 3], [1, 2, 3], [4], 4)
    assert collected(cases.leave_one_out(steps(spark, *ROWS), 2, 10, True))["u"] == ([1, 2, 1], [1, 2], [3], 3)


def test_the_cut_for_two_versions_leaves_only_events_that_neither_was_trained_on():
    early, late, left_out = (
        {"protocol": protocol, "validation_until": until}
        for protocol, until in (("temporal", "2025-01-05"), ("temporal", "2025-01-09"), ("leave_one_out", ""))
    )
    assert unseen_cut([early, late]) == unseen_cut([late, early]) == unseen_cut([late]) == late
    assert unseen_cut([left_out, left_out]) == left_out
    assert unseen_cut([left_out, early]) == {"protocol": "leave_one_out", "validation_until": "2025-01-05"}


def test_with_a_cut_only_last_events_after_it_are_targets(spark):
    found = collected(cases.leave_one_out(steps(spark, *ROWS), 1, 10, False, since=START + timedelta(days=7)))
    assert found == {"u": ([1, 2, 1, 3], [], [4], 4)}
    both = collected(cases.leave_one_out(steps(spark, *ROWS), 1, 10, False, since=START + timedelta(days=6)))
    assert sorted(both) == ["again", "u"]


def test_only_an_event_of_a_wanted_type_is_a_target_and_all_are_history(spark):
    kinds = {"c": "purchase", "d": "purchase", "e": "view", "f": "view"}
    frame = steps(spark, *ROWS).withColumn(
        "event_type", F.coalesce(*(F.when(F.col("event_id") == k, v) for k, v in kinds.items()), "event_type")
    )
    cut = START + timedelta(days=4)
    assert collected(cases.temporal(frame, cut, None, 10, True, ["purchase"])) == {"u": ([1, 2], [1, 2], [3], 2)}
    assert collected(cases.leave_one_out(frame, 1, 10, True, ["purchase"])) == {}
    assert collected(cases.leave_one_out(frame, 2, 10, True, ["purchase"])) == {"u": ([1, 2, 1], [1, 2], [3], 3)}


def test_cuts_are_exact_quantiles_of_time(spark):
    frame = steps(spark, *[("u", day, f"e{day}", 1) for day in range(11)])
    assert cases.cuts(frame, 0.1, 0.2) == (START + timedelta(days=7), START + timedelta(days=9))


def test_cuts_divide_the_events_like_quantiles(spark):
    days = np.random.default_rng(0).exponential(5, size=301).round(2)
    frame = steps(spark, *[("u", float(day), f"e{place}", 1) for place, day in enumerate(days)])
    exact = np.quantile(days, [0.75, 0.9])
    cut = [(found - START) / timedelta(days=1) for found in cases.cuts(frame, 0.1, 0.15)]
    assert [(days < at).sum() for at in cut] == [(days < at).sum() for at in exact]


def test_events_of_a_single_time_or_no_events_cannot_be_cut(spark):
    with pytest.raises(HeadwaterError, match="span too little time"):
        cases.cuts(steps(spark, ("u", 1, "a", 1), ("v", 1, "b", 2)), 0.1, 0.1)
    with pytest.raises(HeadwaterError, match="no events with an item"):
        cases.cuts(steps(spark, ("u", 1, "a", 1)).limit(0), 0.1, 0.1)


def test_parts_of_a_long_time_span_a_few_days_at_most(spark):
    frame = steps(spark, *((f"u{day}", day, "a", 1) for day in range(101)))
    cuts = [
        [(cut - START) / timedelta(days=1) for cut in cases.cuts(frame, 0.1, 0.1, days)] for days in (None, 4, 30, 0.5)
    ]
    assert cuts == [[80, 90], [92, 96], [80, 90], [99, 99.5]]


def held(targets, seen=()):
    def array(values):
        return np.array(values, dtype=np.int64)

    return cases.HeldOut(np.array(["u"]), [array([1])], [array([1])], [array(seen)], [array(targets)], np.array([1]))


def test_ranks_count_ties_against_the_target_exclude_seen_items_and_miss_unknown_ones():
    scores = torch.tensor([[9.0, 5.0, 3.0, 3.0, 1.0]])
    ranking = rank(lambda items, types: scores, held([2, 9]), 3)
    assert ranking.ranks[0].tolist() == [3, UNRANKED]
    assert ranking.lists.tolist() == [[1, 2, 3]]
    ranking = rank(lambda items, types: scores, held([4], seen=[1, 2]), 4)
    assert ranking.ranks[0].tolist() == [2]
    assert ranking.lists.tolist() == [[3, 4, 0, 0]]


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            self.most = max(self.most, each.numel() if isinstance(each, torch.Tensor) else 0)
        return made


def test_a_user_with_very_many_targets_costs_no_more_memory_than_the_catalogue():
    scores = torch.from_numpy(np.random.default_rng(1).integers(0, 50, (1, 1001)).astype(np.float32))
    targets = np.arange(1, 1001, 2)
    with LargestTensor() as made:
        ranking = rank(lambda items, types: scores, held(targets, seen=[2, 4]), 30)
    assert made.most <= scores.numel()
    others = np.delete(scores[0].numpy(), [0, 2, 4])
    expected = sorted((others >= scores[0, target].item()).sum() for target in targets)
    assert expected[0] <= 30 < expected[-1]
    assert ranking.ranks[0].tolist() == [place if place <= 30 else UNRANKED for place in expected]


def test_ranks_of_many_users_are_those_of_each_user_alone():
    rng = np.random.default_rng(1)
    scores = torch.from_numpy(rng.integers(0, 9, (40, 13)).astype(np.float32))
    every = [rng.choice(np.arange(1, 16), rng.integers(1, 6), replace=False) for _ in range(40)]
    seen = [np.setdiff1d(rng.choice(np.arange(1, 16), 4), targets) for targets in every]
    numbers = [np.array([user]) for user in range(40)]  # stand for histories
    many = cases.HeldOut(np.arange(40).astype(str), numbers, numbers, seen, every, np.ones(40))
    for width in (1, 5, 20):
        found = rank(lambda items, types: scores[np.concatenate(items)], many, width, batch=7)
        for user, targets in enumerate(every):
            row = scores[user].clone()
            row[[0, *seen[user][seen[user] < 13]]] = -torch.inf
            ranks = [int((row >= row[item]).sum()) if item < 13 else UNRANKED for item in targets]
            assert found.ranks[user].tolist() == sorted(place if place <= width else UNRANKED for place in ranks)


@pytest.mark.parametrize("better", [0, 4])
def test_ties_count_against_the_target_also_with_variety(better):
    unit = torch.nn.functional.normalize(torch.arange(51.0 * 3).reshape(51, 3).cos(), dim=1)
    scores = torch.tensor([[0.0, *[2.0] * better, *[1.0] * (50 - better)]])
    ranking = rank(lambda items, types: scores, held([better + 1]), 10, variety=Variety("mmr", 0.35, 40), unit=unit)
    assert ranking.ranks[0].tolist() == [UNRANKED]


def test_a_cap_by_category_without_a_weight_leaves_the_ranking_as_it_is():
    scores = torch.arange(51.0, 0.0, -1.0).unsqueeze(0)
    ranking = rank(lambda items, types: scores, held([12]), 12, variety=Variety(weight=0.0, candidates=40, most=2))
    assert ranking.lists.tolist() == [list(range(1, 13))]
    assert ranking.ranks[0].tolist() == [12]


def test_a_model_whose_scores_are_not_numbers_never_hits():
    """A comparison with NaN is false, so counting better items would rank such a target first."""
    ranking = rank(lambda items, types: torch.full((1, 5), torch.nan), held([2]), 3)
    assert ranking.ranks[0].tolist() == [UNRANKED]
    assert ranking.lists.tolist() == [[0, 0, 0]]
    ranking = rank(lambda items, types: torch.tensor([[0.0, 1.0, -torch.inf, 2.0, 3.0]]), held([2]), 3)
    assert ranking.ranks[0].tolist() == [UNRANKED]


def test_an_event_dated_after_it_was_ingested_does_not_move_the_parts(spark):
    days = [*range(101), 101.5]
    frame = steps(spark, *((f"u{day}", day, "a", 1) for day in days), ingested=START + timedelta(days=100))
    first, second = ((cut - START) / timedelta(days=1) for cut in cases.cuts(frame, 0.1, 0.1, 4))
    assert (first, second) == (92, 96)
