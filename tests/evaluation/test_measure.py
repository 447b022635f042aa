"""All metrics at once, for all users and for each segment."""

from datetime import datetime

import numpy as np
import pytest
import torch

from headwater.evaluation import measure
from headwater.evaluation.cases import HeldOut
from headwater.schemas import TABLES

NOW = datetime(2026, 1, 1)
COUNTS = np.array([0.0, 4, 2, 1, 1])


def held(*events_before):
    """Users with the given numbers of events before, no seen items, and one target each: items 1 to 4 in turn."""
    users = len(events_before)
    nothing = [np.empty(0, np.int64)] * users
    targets = [np.array([1 + user % 4]) for user in range(users)]
    return HeldOut(np.arange(users), nothing, nothing, nothing, targets, np.array(events_before))


def scores(items, types):
    """The same scores for all users: item 1 highest, then 2, 3, 4."""
    return torch.tensor([9.0, 4, 3, 2, 1]).repeat(len(items), 1)


def test_every_segment_has_its_own_list_metrics_and_user_metrics():
    found = measure.measure(scores, held(0, 5, 50), [2], COUNTS, unit=torch.eye(5))
    rows = measure.rows(found, 3, "sasrec", 3, "temporal", "test", NOW)
    column = list(TABLES["model_metrics"]).index
    values = {(row[column("segment")], row[column("metric")]): row[column("value")] for row in rows}
    assert {segment for segment, _ in values} == {"all", "new", "light", "heavy"}
    for segment in ("all", "new", "light", "heavy"):
        assert values[segment, "coverage"] == 2 / 4
        assert values[segment, "novelty"] == pytest.approx((1 + 2) / 2)
        assert values[segment, "diversity"] == 1.0
    assert values["new", "hit_rate"] == values["light", "hit_rate"] == 1.0
    assert values["heavy", "hit_rate"] == 0.0
    assert values["all", "hit_rate"] == pytest.approx(2 / 3)
    assert {row[column("users")] for row in rows if row[column("segment")] == "all"} == {3}


def test_served_lists_are_measured_as_given_and_for_each_group():
    people = held(0, 5, 50, 5)
    lists = np.array([[4, 1, 0], [2, 1, 3], [1, 2, 0], [1, 2, 3]])
    group = np.array(["cold", "", "cold", ""], dtype=object)
    found = measure.measure_lists(lists, people, [2, 3, 9], COUNTS, unit=np.eye(5), group=group)
    assert {k for _, k in found.per_user} == {2, 3}, "lists of 3 have no tenth place, but they are measured"
    assert found.per_user["mrr", 3].tolist() == [1 / 2, 1, 0, 0]
    assert found.segments["group cold"].tolist() == [True, False, True, False]
    assert found.of_lists["group cold"]["coverage", 2] == 3 / 4
    assert {row[4] for row in measure.rows(found, 3, "m", 3, "temporal", "test", NOW)} == {
        "all", "new", "light", "heavy", "group cold",
    }  # fmt: skip


def test_a_group_with_the_name_of_a_segment_does_not_change_that_segment():
    people, lists = held(5, 5, 50), np.array([[1], [4], [3]])
    group = np.array(["", "light", "light"], dtype=object)
    found = measure.measure_lists(lists, people, [1], COUNTS, unit=np.eye(5), group=group)
    rows = measure.rows(found, 3, "m", 3, "temporal", "test", NOW)
    hits = {row[4]: (row[7], row[8]) for row in rows if row[5] == "hit_rate"}
    assert hits == {"all": (2 / 3, 3), "light": (1 / 2, 2), "heavy": (1.0, 1), "group light": (1 / 2, 2)}


def test_a_segment_without_users_has_no_rows():
    found = measure.measure(scores, held(0, 1), [1], COUNTS)
    rows = measure.rows(found, 3, "sasrec", 3, "temporal", "test", NOW)
    assert {row[4] for row in rows} == {"all", "new"}
    assert "diversity" not in {row[5] for row in rows}
