"""What must not be listed again, by what a user did with it and how long ago.

A sequence knows the type and time of its last events only, beside all items ever seen. Where it was cut off inside the
span of a rule, nobody can tell which of the seen items the rule means, and all of them are left out: an item too few is a
smaller fault than one that was forbidden.
"""

from __future__ import annotations

import numpy as np

from headwater.clock import DAY
from headwater.config import Topn
from headwater.scoring.users import Steps


def left_out(steps: Steps, seen: list[np.ndarray], topn: Topn, now: np.ndarray, max_length: int) -> list[np.ndarray]:
    """For each user the items, ascending, that ``topn.exclude_seen`` or a rule of ``topn.exclude`` keeps out.

    ``seen``: all items ever seen, int64, one array a user; ``now``: epoch seconds ``[users]``, what ages are counted
    from; ``max_length``: of how many events a sequence holds the last.
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
    """Bool ``[users]``: the user may have done more than the steps say."""
    known = np.array([len(items) for items in steps.items_of_users()])
    ever = np.array([len(items) for items in seen])
    return (steps.count() >= max_length) | (known < ever)
