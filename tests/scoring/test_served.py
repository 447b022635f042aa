"""The lists that held-out users would have been served."""

from datetime import UTC, datetime, timedelta

import numpy as np
import torch

from headwater import schemas
from headwater.config import Config, Topn
from headwater.models import ModelSpec, build
from headwater.models.ranker import Ranker
from headwater.scoring.recent import RecentCounts
from headwater.scoring.served import to_users

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_lists_come_in_the_order_of_the_users_including_users_without_a_history(spark):
    torch.manual_seed(1)
    ranker = Ranker(build(ModelSpec("sasrec", n_items=6, max_length=4, dim=8, layers=1, heads=1)), {})
    goods = [(f"i{k}", k, None, "tea", None, None, True, NOW) for k in range(1, 7)]
    goods.append(
        ("i7", 7, None, "tea", None, None, True, NOW + timedelta(days=1))
    )  # of a later day, so it was not served
    items = spark.createDataFrame(goods, schemas.ddl("items"))
    steps = [NOW - timedelta(days=1), NOW]
    rows = [
        (user, [1, 2], ["view", "view"], steps, [f"{user}1", f"{user}2"], [None, None], [1, 2], NOW, NOW)
        for user in ("b", "z")
    ]
    histories = spark.createDataFrame(rows, schemas.ddl("sequences"))
    known = RecentCounts(np.array([0.0, 1, 2, 3, 9, 5, 4, 9]), NOW.timestamp())
    topn = Topn(n=3, batch_users=2, strategies=[{"name": "cold", "when": {"max_events": 0}}])
    served = to_users(np.array(["c", "b", "a"], dtype=object), histories, items, known, ranker, Config(topn=topn))
    assert served.lists[[0, 2]].tolist() == [[4, 5, 6]] * 2  # the popular items
    assert set(served.lists[1].tolist()) <= {3, 4, 5, 6}
    assert served.group.tolist() == ["cold", "", "cold"]


def test_reasons_are_tested_only_where_the_model_gave_them(spark):
    """Also in a group's lists, whose strategies begin with its name; fallbacks have reasons of another kind."""
    torch.manual_seed(1)
    ranker = Ranker(build(ModelSpec("sasrec", n_items=6, max_length=4, dim=8, layers=1, heads=1)), {})
    items = spark.createDataFrame(
        [(f"i{k}", k, None, "tea", None, None, True, NOW) for k in range(1, 8)], schemas.ddl("items")
    )
    rows = [
        (
            user,
            seen,
            ["view"] * len(seen),
            [NOW] * len(seen),
            [f"{user}{k}" for k in seen],
            [None] * len(seen),
            seen,
            NOW,
            NOW,
        )
        for user, seen in (("a", [1, 2, 3]), ("b", [2, 4]), ("c", [7, 7]))
    ]
    histories = spark.createDataFrame(rows, schemas.ddl("sequences"))
    known = RecentCounts(np.array([0.0, 1, 2, 3, 9, 5, 4, 9]), NOW.timestamp())
    grouped = Topn(n=2, batch_users=2, strategies=[{"name": "all", "when": {}}])
    served = [
        to_users(np.array(users, dtype=object), histories, items, known, ranker, Config(topn=grouped)).metrics
        for users in (["a", "b"], ["c"], [])
    ]
    assert served[0]["explained"] > 0
    assert served[0]["reason_holds"] == 1.0
    # the model does not know item 7, so no reason is its own; the last call has no users
    assert served[1:] == [{"miscalibration": 0.0}, {}]
