"""Items that must not be listed again, by what the user did with them and how long ago.

A sequence has the type and time of its last events only, besides all items ever seen. If it was cut off within the time span
of a rule, it is unknown which of the seen items the rule covers, and all of them are excluded: a missing item is a smaller
fault than a forbidden one.
"""

from __future__ import annotations

import numpy as np

from headwater.clock import DAY
from headwater.config import Topn
from headwater.scoring.users import Steps


def excluded_items(
    steps: Steps, seen: list[np.ndarray], topn: Topn, now: np.ndarray, max_length: int
) -> list[np.ndarray]:
    """For each user the items, ascending, that ``topn.exclude_seen`` or a rule of ``topn.exclude`` excludes.

    ``seen``: all items ever seen, int64, one array per user; ``now``: the time from which ages are counted, epoch seconds
    ``[users]``; ``max_length``: the maximum number of events in a sequence.
    """
    if topn.exclude_seen:
        return seen
    if not topn.exclude:
        return [np.empty(0, np.int64)] * len(seen)
    meant = np.zeros(len(steps.item), dtype=bool)
    unsure = np.zeros(len(seen), dtype=bool)
    cut_off = _cut_off(steps, seen, max_length)
    for rule in topn.exclude:
        since = np.full(len(seen), -np.inf) if rule.days is None else now - rule.days * DAY
        meant |= steps.of_types(rule.event_types) & (steps.at > since[steps.user])
        unsure |= cut_off & (steps.oldest() > since)
    ruled = steps.items_of_users(meant)
    return [all_of_them if whole else some for whole, all_of_them, some in zip(unsure, seen, ruled, strict=True)]


def _cut_off(steps: Steps, seen: list[np.ndarray], max_length: int) -> np.ndarray:
    """Bool ``[users]``: whether the user may have more events than ``steps`` holds."""
    known = np.array([len(items) for items in steps.items_of_users()])
    ever = np.array([len(items) for items in seen])
    return (steps.count() >= max_length) | (known < ever)
