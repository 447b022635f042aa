"""Groups of users whose lists follow rules of their own (``topn.strategies``); all other users follow the general rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headwater.clock import DAY
from headwater.config import Topn, When
from headwater.models.variety import Variety
from headwater.scoring import boosts
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.kernel import FORBIDDEN
from headwater.scoring.ladder import Ladder
from headwater.scoring.taste import Taste
from headwater.scoring.users import Steps


@dataclass(frozen=True)
class Group:
    """A group's ``name``, empty for users in no group, the conditions for membership (``when``), its rules, inherited ones
    included, and the catalogue that it may see."""

    name: str
    when: When | None
    topn: Topn
    catalogue: Catalogue
    variety: Variety
    ladder: Ladder

    def offsets(self, everything: Catalogue) -> np.ndarray:
        """The score offsets of the group's rules, float32 ``[items + 1]``: its boosts, ``FORBIDDEN`` for items that
        ``everything`` may show but the group must not see."""
        forbidden = everything.available & ~self.catalogue.available
        return np.where(forbidden, np.float32(FORBIDDEN), boosts.of_items(self.catalogue, self.topn.boosts))


def resolve(topn: Topn, catalogue: Catalogue) -> list[Group]:
    """The groups in the order of the config; the last one is for all other users."""
    rules = [(kind.name, kind.when, topn.of_group(kind)) for kind in topn.strategies]
    found, narrowed = [], {catalogue.available.tobytes(): catalogue}
    for name, when, own in [*rules, ("", None, topn)]:
        allowed = catalogue.narrowed(own.categories, catalogue.denied_to.get(name), own.deny_categories)
        # groups that may see the same items share a catalogue, and with it their sections
        shared = narrowed.setdefault(allowed.available.tobytes(), allowed)
        found.append(Group(name, when, own, shared, Variety.of(own), Ladder(shared, own.max_per_category, own.wording)))
    return found


def assign(groups: list[Group], steps: Steps, taste: Taste, now: np.ndarray) -> np.ndarray:
    """The index of each user's group, int64 ``[users]``: the first one whose conditions all hold. ``now`` in epoch seconds.

    The conditions see only the last events of a history, as many as a sequence holds.
    """
    member = np.full(len(now), len(groups) - 1)
    for place in range(len(groups) - 2, -1, -1):
        when = groups[place].when
        assert when is not None, "only the last group has no condition"
        member[_fits(when, groups[place].catalogue.names, steps, taste, now)] = place
    return member


def _fits(when: When, names: np.ndarray, steps: Steps, taste: Taste, now: np.ndarray) -> np.ndarray:
    count = steps.count()
    fits = count >= when.min_events
    if when.max_events is not None:
        fits &= count <= when.max_events
    if when.min_days_away:
        fits &= (count > 0) & (now - steps.newest() >= when.min_days_away * DAY)
    if when.category:
        fits &= (taste.shares * (names[taste.categories] == when.category)).sum(axis=1) >= when.min_share
    return fits
