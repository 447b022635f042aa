"""MovieLens-100K replayed as the life of a film site: the time of each interaction, and users' actions on their lists.

The interactions are split in time order into past and live. The past (all but the newest ``LIVE_INTERACTIONS``) is
shifted as one block so that it ends ``QUIET_PERIOD`` before the start of the demo. The live interactions get new times, in the
same order, within the last minutes; they feed the nearline rounds and the actions on lists. Clicks are made up only there
(``simulated``). ``traffic`` writes everything as files.

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

LIVE_INTERACTIONS = 2_000
ROUND_INTERACTIONS = 250
ROUND_MAX_PER_USER = 40
TRAFFIC_DAYS = 30
SECOND_NIGHT_DAYS = 5
QUIET_PERIOD = timedelta(seconds=90)


class Shown(NamedTuple):
    """One place of a list that a user was shown."""

    rank: int
    film: str
    generated_at: datetime


@dataclass(frozen=True)
class Plan:
    """All interactions, split into parts in time order; ``rounds`` and ``future`` get their times when they are written."""

    history: list[Interaction]
    first_night: list[Interaction]
    second_night: list[Interaction]
    rounds: list[list[Interaction]]
    future: list[Interaction]


def plan(interactions: list[Interaction], base: datetime) -> Plan:
    """Split interactions into the parts of the demo, and shift the past so that it ends ``QUIET_PERIOD`` before ``base``."""
    past, live = interactions[:-LIVE_INTERACTIONS], interactions[-LIVE_INTERACTIONS:]
    end = base - QUIET_PERIOD
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
    """The next ``ROUND_INTERACTIONS``, at most ``ROUND_MAX_PER_USER`` per user, and the rest; each user's order is kept."""
    taken: list[Interaction] = []
    rest: list[Interaction] = []
    of_user: Counter[str] = Counter()
    for one in live:
        if len(taken) < ROUND_INTERACTIONS and of_user[one.user] < ROUND_MAX_PER_USER:
            of_user[one.user] += 1
            taken.append(one)
        else:
            rest.append(one)
            of_user[one.user] = ROUND_MAX_PER_USER  # the user's later interactions must not overtake this one
    return taken, rest


def stamp(interactions: list[Interaction], since: datetime, until: datetime, seed: int) -> list[Interaction]:
    """The same interactions in the same order, at seeded random times within ``since`` … ``until``."""
    span = (until - since) / timedelta(microseconds=1)
    draw = random.Random(f"stamp:{seed}")
    moments = sorted(since + timedelta(microseconds=int(draw.random() * span)) for _ in interactions)
    return [one._replace(time=moment) for one, moment in zip(interactions, moments, strict=True)]


@dataclass(frozen=True)
class Actions:
    """Users' actions: real interactions with a film they were shown, real interactions with other films, simulated clicks."""

    taken: list[Interaction]
    elsewhere: list[Interaction]
    simulated: list[Interaction]


def act(
    future: list[Interaction], lists: dict[str, list[Shown]], since: datetime, until: datetime, visits: float = 0.5
) -> Actions:
    """Let users act after ``since``, when all lists have been published, and before ``until``.

    A real future interaction with a film of the user's list counts as an action on the list. In addition, a share ``visits`` of
    the users look at their list and click each rank with probability 0.12 / log2(rank + 1), whatever the film. Such clicks are
    enough to drive the loop, but they carry no information about taste, and all of them are on films that the champion chose:
    no quality may be claimed from them.
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
