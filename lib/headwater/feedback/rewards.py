"""The reward of an action, as one Spark expression.

Each event type has a weight (``feedback.rewards``). The event's value scales it within bounds, so that one order of a thousand
pieces or one price in another currency never outweighs all other actions:

- ``rating``: weight × value / scale, with the fraction clipped to 0 … 1; a rating without a value counts half.
- ``purchase``: weight × log2(1 + value), with the factor clipped to 1 … 2: one piece counts once, three or more count twice,
  and a purchase without a value counts once. A negative value is a return, with reward 0.
- all other types: the weight alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

from headwater.schemas import EventType

UNVALUED_RATING = 0.5
MAX_PURCHASE_FACTOR = 2.0


def reward(event_type: Column, value: Column, rewards: Mapping[EventType, float], rating_scale: float) -> Column:
    """The reward of an action, never null; 0 for a type without a weight."""
    weights = F.create_map(*(F.lit(part) for kind, weight in rewards.items() for part in (kind, float(weight))))
    weight = F.coalesce(F.try_element_at(weights, event_type), F.lit(0.0)) if rewards else F.lit(0.0)
    liked = F.coalesce(_between(value / F.lit(float(rating_scale)), 0.0, 1.0), F.lit(UNVALUED_RATING))
    spent = F.coalesce(_between(F.log2(F.lit(1.0) + value), 1.0, MAX_PURCHASE_FACTOR), F.lit(1.0))
    bought = F.when(value < 0, F.lit(0.0)).otherwise(spent)
    return weight * F.when(event_type == "rating", liked).when(event_type == "purchase", bought).otherwise(F.lit(1.0))


def _between(value: Column, low: float, high: float) -> Column:
    """The value clipped to a range; null stays null."""
    return F.when(value.isNotNull(), F.least(F.greatest(value, F.lit(low)), F.lit(high)))
