"""Whose lists contain items that may no longer be shown: unavailable, denied, of a category that is not listed, or too old."""

from __future__ import annotations

import json
import zlib
from functools import reduce
from itertools import takewhile
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headwater.config import LEAVING_OUT, Strategy, Topn
from headwater.errors import TableError
from headwater.job import Job
from headwater.nearline.cache import ScoringCache
from headwater.scoring.items import is_left_out
from headwater.tables import Warehouse, try_read_changes


def rules(j: Job, cache: ScoringCache, model: int) -> dict[str, Any]:
    """What decides which items may be shown, as the note of lists says it: the version of `items`, a checksum of the rules that
    leave items out, for whole groups too, and the moment up to which ages are counted, null without a maximum age."""
    topn = j.config.topn
    each = [{name: getattr(rule, name) for name in LEAVING_OUT} for rule in (topn, *topn.strategies)]
    groups = [group.model_dump(mode="json", include={"name", "when"}) for group in topn.strategies]
    return {
        "items_version": j.warehouse.version("items"),
        "left_out_by": zlib.crc32(
            json.dumps([each, groups, topn.category_separator, topn.titled_only, topn.max_age_days]).encode()
        ),
        "until": None if topn.max_age_days is None else cache.recent_counts(model).until,
    }


def may_have_hidden(tables: Warehouse, before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether other rules hold ``now`` than ``before``, or items have been updated since; cheap to tell."""
    if _differ(before, now):
        return True
    newer = takewhile(lambda commit: commit.version > before.get("items_version", -1), tables.commits("items"))
    return any(int(commit.metrics.get("numTargetRowsUpdated", 0)) for commit in newer)


def users_with_hidden_items(j: Job, before: dict[str, Any], now: dict[str, Any]) -> DataFrame | None:
    """The users (user_id) whose lists contain items that may not be shown by the rules ``now``, those of their group too; None if
    all such items could not be shown by the rules ``before`` either. Lists name the group that they were made for; where other
    rules left items out then, their user may be in any group."""
    tables, topn = j.warehouse, j.config.topn
    if not forbids_more(j, before, now):
        return None
    same_rules = before.get("left_out_by") == now["left_out_by"]
    each = [tables.read(table).select("user_id", "item_id") for table in ("topn", "sections") if tables.exists(table)]
    shown, listed, items = reduce(DataFrame.unionByName, each), tables.read("topn"), tables.read("items")

    def with_left_out(rows: DataFrame, rules: Topn) -> DataFrame:
        return rows.join(left_out(items, rules, now), "item_id", how="left_semi").select("user_id")

    found = [with_left_out(shown, topn)]
    for group in leaving_out(topn):
        members = listed.where(F.startswith("strategy", F.lit(f"{group.name}: "))).select("user_id")
        theirs = shown.join(members, "user_id", how="left_semi") if same_rules else shown
        found.append(with_left_out(theirs, topn.of_group(group)))
    # decided once: it reads the lists that this run replaces, and Spark recomputes a cached frame whose table changes
    return reduce(DataFrame.union, found).distinct().localCheckpoint()


def forbids_more(j: Job, before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether an item that could be shown by the rules ``before`` is forbidden by those of ``now``; True if nobody can tell any
    more. A new price forbids nothing, so nobody's lists need be read for it."""
    tables, topn = j.warehouse, j.config.topn
    if _differ(before, now):
        return True
    try:
        then, today = tables.read("items", before.get("items_version", -1)), tables.pinned("items")
    except TableError:  # the log of that version was cleaned up
        return True
    known = today.join(then.select("item_id"), "item_id", how="left_semi")
    more = (
        left_out(known, each, now).join(left_out(then, each, now), "item_id", how="left_anti")
        for each in (topn, *map(topn.of_group, leaving_out(topn)))
    )
    return try_read_changes(reduce(DataFrame.union, more).isEmpty) is not True


def _differ(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether items are left out by other rules, or as of another moment."""
    return before.get("left_out_by") != now["left_out_by"] or before.get("until") != now["until"]


def leaving_out(topn: Topn) -> list[Strategy]:
    """The groups with rules of their own that leave items out."""
    return [group for group in topn.strategies if any(getattr(group, name) for name in LEAVING_OUT)]


def left_out(items: DataFrame, topn: Topn, now: dict[str, Any]) -> DataFrame:
    """The items (item_id) that lists by ``topn`` must not contain at the time of ``rules``."""
    return items.where(is_left_out(topn, now["until"] or 0.0)).select("item_id")
