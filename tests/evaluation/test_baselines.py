"""Baselines, on histories whose answer is known."""

import time
from datetime import UTC, datetime, timedelta

import numpy as np

from headwater.config import Config
from headwater.evaluation import baselines
from headwater.evaluation.protocol import Evaluation
from headwater.models import transitions
from headwater.models.histories import left_padded

START = datetime(2025, 1, 1, tzinfo=UTC)
STEPS = (
    "user_id string, event_time timestamp, event_id string, item_idx int, event_type string, value double, "
    "ingested_at timestamp"
)


def steps(spark, histories):
    """Steps of users, given as lists of items in order; two steps share each time."""
    rows = [
        (
            f"u{user}",
            START + timedelta(days=place // 2),
            f"e{place:03}",
            int(item),
            "view",
            None,
            START + timedelta(days=99),
        )
        for user, items in enumerate(histories)
        for place, item in enumerate(items)
    ]
    return spark.createDataFrame(rows, STEPS)


def test_own_items_are_ranked_by_frequency_and_all_others_by_popularity():
    scores = baselines.by_own(np.array([0.0, 1, 9, 3, 3, 7]))
    histories = [np.array([3, 1, 1, 4]), np.array([], np.int64), np.array([4, 77])]  # 77 is not in the catalogue yet
    ranked = scores(histories, []).argsort(dim=1, descending=True, stable=True)[:, :5]
    assert ranked.tolist() == [[1, 3, 4, 2, 5], [2, 5, 3, 4, 1], [4, 2, 5, 3, 1]]


def test_transitions_counted_in_spark_equal_those_counted_from_sequences(spark):
    chance = np.random.default_rng(1)
    histories = [chance.integers(1, 8, length) for length in (1, 2, 9, 30, 7)]
    found = baselines.transitions(steps(spark, histories), 9)
    wanted = transitions.count(left_padded(histories), 9)
    np.testing.assert_allclose(found.matrix.toarray(), wanted.matrix.toarray(), rtol=1e-6)
    assert (found.window, found.decay) == (wanted.window, wanted.decay)


def test_beyond_the_limit_each_item_keeps_its_most_frequent_followers(spark):
    found = baselines.transitions(steps(spark, [[1, 2, 3], [1, 2], [2, 3]]), 3, pairs=3)
    assert found.matrix.toarray()[1:, 1:].tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_transitions_are_learned_from_all_users_even_if_few_are_evaluated(spark):
    """A user's last transition occurs elsewhere only in one other user's history, and all items are equally popular."""
    pairs = [(2 * user + 1, 2 * user + 2) for user in range(6)]
    circle = [(*pairs[(user + 1) % 6], *pairs[user]) for user in range(6)]
    config = Config(evaluate={"max_users": 1, "k": [1]})
    facts = {"protocol": "leave_one_out", "validation_until": ""}
    evaluation = Evaluation(steps(spark, circle), 12, facts, "test", config)
    assert len(evaluation.held) == 1
    assert evaluation.baseline("item_transitions").mean("hit_rate", 1) == 1.0


def test_recent_days_have_24_hours_when_daylight_saving_time_begins(spark, monkeypatch):
    monkeypatch.setenv("TZ", "Europe/London")
    time.tzset()
    newest = datetime(2025, 4, 1, 12, tzinfo=UTC)  # clocks went forward on 30 March
    done = [("v", newest - timedelta(days=8), 1), ("v", newest - timedelta(days=7) + timedelta(minutes=30), 2)]
    done += [("v", newest, 3), ("u", newest + timedelta(days=1), 2)]
    rows = [
        (user, at, f"e{place}", item, "view", None, newest + timedelta(days=1))
        for place, (user, at, item) in enumerate(done)
    ]
    cut = (newest + timedelta(hours=1)).isoformat()
    facts = {"protocol": "temporal", "train_until": cut, "validation_until": cut}
    try:
        evaluation = Evaluation(spark.createDataFrame(rows, STEPS), 3, facts, "test", Config())
        assert evaluation.baseline("recent_popularity").mean("mrr", 10) == 1  # item 2 is as frequent as item 3
    finally:
        monkeypatch.undo()
        time.tzset()
