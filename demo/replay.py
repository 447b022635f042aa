"""MovieLens-100K as a film site would live through it: when each interaction happens, and what users do with their lists.

In time order the interactions are cut into the past (all but the newest ``LIVE``), shifted as one block so that it
ends ``QUIET`` before the start of the demo, and the live ones, stamped anew in the same order within the last minutes,
for the nearline rounds and for what users do with the lists they are shown. Only there are clicks made up
(``simulated``). ``traffic`` writes all of it as files.

Everything is seeded: the same base time gives the same bytes.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from movielens import Interaction

LIVE = 2_000
ROUND = 250
ROUND_PER_USER = 40
TRAFFIC_DAYS = 30
SECOND_NIGHT_DAYS = 5
QUIET = timedelta(seconds=90)


class Shown(NamedTuple):
    """One place of a list that a user was shown."""

    rank: int
    film: str
    generated_at: datetime


@dataclass(frozen=True)
class Plan:
    """All interactions in their parts, each in time order; ``rounds`` and ``future`` are stamped when written."""

    history: list[Interaction]
    first_night: list[Interaction]
    second_night: list[Interaction]
    rounds: list[list[Interaction]]
    future: list[Interaction]


def plan(interactions: list[Interaction], base: datetime) -> Plan:
    """Cut interactions into the parts of the demo and move the past so that it ends ``QUIET`` before ``base``."""
    past, live = interactions[:-LIVE], interactions[-LIVE:]
    end = base - QUIET
    shift = end - past[-1].time
    past = [one._replace(time=one.time + shift) for one in past]
    rounds: list[list[Interaction]] = []
    for _ in range(2):
        taken, live = _take_round(live)
        rounds.append(taken)
    midnight = end.replace(hour=0, minute=0, second=0, microsecond=0)  # logs are cut by day, so nights are too
    first, second = midnight - timedelta(days=TRAFFIC_DAYS), midnight - timedelta(days=SECOND_NIGHT_DAYS)
    return Plan(
        history=[one for one in past if one.time < first],
        first_night=[one for one in past if first <= one.time < second],
        second_night=[one for one in past if one.time >= second],
        rounds=rounds,
        future=live,
    )


def _take_round(live: list[Interaction]) -> tuple[list[Interaction], list[Interaction]]:
    """The next ``ROUND`` interactions, ``ROUND_PER_USER`` of one user at most, and the rest; a user's order stays."""
    taken: list[Interaction] = []
    rest: list[Interaction] = []
    of_user: Counter[str] = Counter()
    for one in live:
        if len(taken) < ROUND and of_user[one.user] < ROUND_PER_USER:
            of_user[one.user] += 1
            taken.append(one)
        else:
            rest.append(one)
            of_user[one.user] = ROUND_PER_USER  # what comes later must not overtake what waits
    return taken, rest


def stamp(interactions: list[Interaction], since: datetime, until: datetime, seed: int) -> list[Interaction]:
    """The same interactions in the same order, at seeded random moments within ``since`` … ``until``."""
    span = (until - since) / timedelta(microseconds=1)
    draw = random.Random(f"stamp:{seed}")
    moments = sorted(since + timedelta(microseconds=int(draw.random() * span)) for _ in interactions)
    return [one._replace(time=moment) for one, moment in zip(interactions, moments, strict=True)]


@dataclass(frozen=True)
class Actions:
    """What users did with their lists: real interactions with a film they were shown, others, made-up clicks."""

    taken: list[Interaction]
    elsewhere: list[Interaction]
    simulated: list[Interaction]


def act(
    future: list[Interaction], lists: dict[str, list[Shown]], since: datetime, until: datetime, visits: float = 0.5
) -> Actions:
    """Let users act after ``since``, when all lists stood, and before ``until``.

    A real future interaction with a film of the user's list is taken from the list. Besides, a share ``visits`` of the
    users looks at the list and clicks at a rank with probability 0.12 / log2(rank + 1), whatever stands there. Such
    clicks are enough to drive the loop, but they say nothing of taste, and all of them are films that the champion
    chose: no quality may be claimed from them.
    """
    stamped = stamp(future, since, until, seed=3)
    places = {(user, place.film) for user, places in lists.items() for place in places}
    taken = [one for one in stamped if (one.user, one.film) in places]
    elsewhere = [one for one in stamped if (one.user, one.film) not in places]
    real = {(one.user, one.film) for one in future}
    draw = random.Random("clicks")
    clicks = []
    for user in sorted(lists):
        looks = draw.random() < visits
        for place in sorted(lists[user]):
            clicked = draw.random() < 0.12 / math.log2(place.rank + 1)
            if looks and clicked and (user, place.film) not in real:
                clicks.append(Interaction(user, place.film, 0, since))
    return Actions(taken, elsewhere, stamp(clicks, since, until, seed=4))
