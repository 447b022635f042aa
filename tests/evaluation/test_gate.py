"""The gate decides on paired values of the same users, and says why."""

import numpy as np
import pytest

from headwater.config import Gate
from headwater.evaluation.gate import decide, interval

GATE = Gate(bootstrap_samples=500, min_users=10)
LOW, HIGH = np.full(50, 0.1), np.full(50, 0.3)


@pytest.mark.parametrize(
    ("challenger", "champion", "recent", "promote", "words"),
    [
        (HIGH, LOW, LOW, True, "as good as the champion or better"),
        (HIGH, HIGH, LOW, True, "as good as the champion or better"),
        (LOW, HIGH, np.zeros(50), False, "worse than the champion"),
        (HIGH, None, LOW, True, "first champion"),
        (LOW, None, HIGH, False, "not better than recent popularity"),
        (HIGH[:5], LOW[:5], LOW[:5], False, "5 held-out users are too few"),
    ],
    ids=["better", "equal", "worse", "first", "popular", "few users"],
)
def test_the_gate_decides_and_gives_a_reason(challenger, champion, recent, promote, words):
    decision = decide(challenger, champion, recent, GATE, seed=1)
    assert decision.promote is promote
    assert words in decision.reason


def test_better_on_average_but_too_uncertain_is_refused():
    rng = np.random.default_rng(0)
    champion = np.full(20, 0.2)
    noisy = champion + 0.001 + rng.normal(0, 0.2, 20) - 0
    noisy += 0.201 - noisy.mean()
    decision = decide(noisy, champion, np.zeros(20), GATE, seed=1)
    assert decision.promote is False
    assert "could be worse by more than 2%" in decision.reason


def test_the_interval_covers_the_mean_and_is_the_same_for_a_seed():
    values = np.random.default_rng(1).normal(0.5, 0.1, 200)
    low, high = interval(values, 1000, 0.95, seed=3)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.15)
    assert interval(values, 1000, 0.95, seed=3) == (low, high)
