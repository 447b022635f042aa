"""Which changes of the catalogue or the rules make a round look through the lists."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from inside import InProcessSite

from headwater import schemas
from headwater.config import Topn
from headwater.job import Job
from headwater.nearline import left_out

SEEN = datetime(2026, 1, 1, tzinfo=UTC)
GROUPS = [{"name": "young", "when": {"category": "toys"}, "deny_categories": ["alcohol"]}]
CACHE = SimpleNamespace(recent_counts=lambda model: SimpleNamespace(until=SEEN.timestamp()))


@pytest.fixture
def site(spark, tmp_path):
    found = InProcessSite(spark, tmp_path, {"topn": {"strategies": GROUPS}})
    change(found, ("a", 1, "toys", 1.0, True), ("b", 2, "toys", 1.0, True), ("c", 3, "alcohol", 1.0, False))
    return found


def change(site, *rows):
    """(item_id, item_idx, category, price, available)"""
    full = [
        (item, index, item, category, None, price, available, SEEN) for item, index, category, price, available in rows
    ]
    frame = site.tables.spark.createDataFrame(full, schemas.ddl("items"))
    site.tables.merge(frame, "items", {"job": "ingest_events"})


def rules(site, **topn):
    return left_out.rules(job(site, **topn), CACHE, 1)


def job(site, **topn):
    config = site.config.model_copy(update={"topn": Topn(**{"strategies": GROUPS, **topn})})
    return Job("score_topn", config)


def forbids_more(site, before, **topn):
    return left_out.forbids_more(job(site, **topn), before, rules(site, **topn))


def test_a_new_price_or_an_item_that_was_left_out_before_forbids_nothing(site):
    before = rules(site)
    assert not forbids_more(site, before)
    assert not left_out.may_have_hidden(site.tables, before, rules(site))
    change(site, ("a", 1, "toys", 2.0, True), ("c", 3, "alcohol", 2.0, False), ("d", 4, "toys", 1.0, False))
    assert left_out.may_have_hidden(site.tables, before, rules(site))
    assert not forbids_more(site, before)


@pytest.mark.parametrize("row", [("a", 1, "toys", 1.0, False), ("a", 1, "alcohol", 1.0, True)])
def test_an_item_that_is_left_out_from_now_on_for_all_or_for_a_group_forbids_more(site, row):
    before = rules(site)
    change(site, row)
    assert forbids_more(site, before)
    assert not forbids_more(site, rules(site))


@pytest.mark.parametrize(
    "topn",
    [
        {"deny": ("a",)},
        {"max_age_days": 3.0},
        {"strategies": [{**GROUPS[0], "when": {}}]},
        {"strategies": [{**GROUPS[0], "name": "old"}]},
    ],
)
def test_other_rules_may_forbid_more_also_if_only_who_is_in_a_group_changes(site, topn):
    assert forbids_more(site, rules(site), **topn)


@pytest.mark.parametrize("lost", ["files", "log"])
def test_where_the_catalogue_of_then_is_gone_more_may_be_forbidden(site, lost):
    before = rules(site)
    change(site, ("a", 1, "toys", 2.0, True))
    if lost == "files":
        site.vacuum("items")
    else:
        before["items_version"] = -1
    assert forbids_more(site, before)
