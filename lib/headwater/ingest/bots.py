"""Bot detection: agents that identify themselves, and browsing at a rate or rhythm that no person produces.

Only browsing is checked for behaviour, and refused: a basket of purchases at one instant, or an import of ratings, is not a bot.
"""

from __future__ import annotations

from functools import lru_cache

import crawleruseragents
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

ACTIONS = ("view", "search", "click")
"""Browsing that a user does; a page shows fifty impressions at once."""
BROWSING = (*ACTIONS, "impression")
"""What is refused of a bot."""


def crawlers(agents: list[str]) -> list[str]:
    """The agents that crawler-user-agents knows as crawlers. A search for "bot" would also find *Cubot*, a telephone."""
    return [agent for agent in agents if agent and _is_crawler(agent)]


@lru_cache(maxsize=100_000)
def _is_crawler(agent: str) -> bool:
    # half a millisecond of many patterns; a stream meets the same agents in every round
    return crawleruseragents.is_crawler(agent)


def behaviour(events: DataFrame, events_per_minute: int, regular_events: int) -> DataFrame:
    """Users with a ``bot_reason``: more than ``events_per_minute`` of ``ACTIONS`` in one clock minute (``bot_rate``), or at least
    ``regular_events`` of them with equal gaps above zero (``bot_regular``)."""
    browsing = events.where(F.col("event_type").isin(*ACTIONS))
    in_minute = Window.partitionBy("user_id", F.date_trunc("minute", "event_time"))
    in_order = Window.partitionBy("user_id").orderBy("event_time", "event_id")
    gap = F.unix_micros("event_time") - F.unix_micros(F.lag("event_time").over(in_order))
    paced = browsing.select("user_id", F.count("*").over(in_minute).alias("in_minute"), gap.alias("gap"))
    users = paced.groupBy("user_id").agg(
        F.count("*").alias("events"),
        F.max("in_minute").alias("most"),
        F.min("gap").alias("shortest"),
        F.max("gap").alias("longest"),
    )
    regular = (F.col("events") >= regular_events) & (F.col("shortest") == F.col("longest")) & (F.col("shortest") > 0)
    reason = F.when(F.col("most") > events_per_minute, "bot_rate").when(regular, "bot_regular")
    return users.select("user_id", reason.alias("bot_reason")).where(F.col("bot_reason").isNotNull())
