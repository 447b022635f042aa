"""The gate decides on paired values of the same users, and says why."""

import numpy as np
import pytest

from headwater.config import Gate
from headwater.evaluation.gate import decide, interval

GATE = Gate(bootstrap_samples=500, min_users=10)
ZERO, LOW, HIGH = np.zeros(50), np.full(50, 0.1), np.full(50, 0.3)


@pytest.mark.parametrize(
    ("challenger", "champion", "baselines", "promote", "words"),
    [
        (HIGH, LOW, {"popularity": LOW}, True, "as good as the champion or better"),
        (HIGH, HIGH, {"popularity": LOW}, True, "as good as the champion or better"),
        (LOW, HIGH, {}, False, "worse than the champion"),
        (
            HIGH,
            None,
            {"popularity": LOW, "recent_popularity": ZERO},
            True,
            "0.3000 against 0.1000 of popularity, 50 users",
        ),
        (LOW, None, {"popularity": ZERO, "recent_popularity": HIGH}, False, "not better than recent popularity"),
        (LOW, None, {"popularity": LOW, "recent_popularity": ZERO}, False, "not better than popularity"),
        (ZERO, None, {}, True, "first champion (ndcg@10 0.0000, 50 users)"),
        (HIGH[:5], LOW[:5], {}, False, "5 held-out users are too few"),
    ],
    ids=["better", "equal", "worse", "first", "recent", "popular", "no baseline", "few users"],
)
def test_the_gate_decides_and_gives_a_reason(challenger, champion, baselines, promote, words):
    decision = decide(challenger, champion, baselines, GATE, seed=1)
    assert decision.promote is promote
    assert words in decision.reason


def test_better_on_average_but_too_uncertain_is_refused():
    rng = np.random.default_rng(0)
    champion = np.full(20, 0.2)
    noisy = champion + 0.001 + rng.normal(0, 0.2, 20) - 0
    noisy += 0.201 - noisy.mean()
    decision = decide(noisy, champion, {"popularity": np.zeros(20)}, GATE, seed=1)
    assert decision.promote is False
    assert "could be worse by more than 2%" in decision.reason


def test_the_interval_covers_the_mean_and_is_the_same_for_a_seed():
    values = np.random.default_rng(1).normal(0.5, 0.1, 200)
    low, high = interval(values, 1000, 0.95, seed=3)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.15)
    assert interval(values, 1000, 0.95, seed=3) == (low, high)
