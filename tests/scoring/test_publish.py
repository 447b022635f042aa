"""What changes in topn: rows to write, ranks to withdraw, who changed, and what must never be published."""

from datetime import datetime

import pytest

from headwater import schemas
from headwater.scoring import publish

NOW = datetime(2026, 1, 1)


def rows(spark, *lists):
    full = [(user, rank, item, score, "r", "s", 1, NOW, NOW, None) for user, rank, item, score in lists]
    return spark.createDataFrame(full, schemas.ddl("topn"))


def pairs(frame):
    return sorted((row["user_id"], row["rank"], row["item_id"]) for row in frame.collect())


def test_a_shorter_list_withdraws_its_last_ranks_and_nobody_elses(spark):
    standing = rows(spark, ("u", 1, "a", 2.0), ("u", 2, "b", 1.0), ("v", 1, "c", 1.0), ("v", 2, "d", 0.5))
    new = rows(spark, ("u", 1, "b", 3.0))
    withdrawn = publish.with_withdrawn(new, standing).collect()
    assert sorted((row["user_id"], row["rank"], row["item_id"] or "") for row in withdrawn) == [
        ("u", 1, "b"),
        ("u", 2, ""),
    ]


def test_a_user_changed_when_items_or_their_order_did(spark):
    standing = rows(
        spark, ("same", 1, "a", 2.0), ("same", 2, "b", 1.0), ("swapped", 1, "a", 2.0), ("swapped", 2, "b", 1.0)
    )
    new = rows(
        spark,
        ("same", 1, "a", 9.0),
        ("same", 2, "b", 8.0),
        ("swapped", 1, "b", 2.0),
        ("swapped", 2, "a", 1.0),
        ("new", 1, "a", 1.0),
    )
    assert {row["user_id"] for row in publish.changed_users(new, standing).collect()} == {"swapped", "new"}


@pytest.mark.parametrize(
    "bad",
    [
        [("u", 1, "a", float("nan")), ("u", 2, "b", 1.0)],
        [("u", 1, "a", float("inf")), ("u", 2, "b", 1.0)],
        [("u", 1, "a", 2.0), ("u", 2, "a", 1.0)],
        [("u", 1, "a", 2.0), ("u", 3, "b", 1.0)],
        [("u", 1, "a", 2.0), ("u", 1, "b", 1.0)],
        [("u", 1, None, 2.0)],
    ],
    ids=["not a number", "infinite", "an item twice", "a gap", "a rank twice", "no item"],
)
def test_a_list_that_is_not_fit_is_found(spark, bad):
    good = [("v", 1, "a", 2.0), ("v", 2, "b", 1.0)]
    assert [row["user_id"] for row in publish.unfit(rows(spark, *good, *bad)).collect()] == ["u"]


def test_rows_carry_the_reason_the_history_time_and_the_columns_in_order(spark):
    lists = spark.createDataFrame(
        [("u", 1, 5, 2.0, "sasrec", 3, 2, "i5", "Lamp"), ("u", 2, 6, 1.0, "recent_popular", 0, 0, "i6", None)],
        "user_id string, rank int, item_idx int, score double, strategy string, because_idx int, because_type int, "
        "item_id string, because_title string",
    )
    sequences = spark.createDataFrame([("u", datetime(2025, 5, 5))], "user_id string, last_event_time timestamp")
    # type 2 is "search", which no history holds: the sentence falls back rather than say something odd
    first, second = (
        publish.topn_rows(lists.replace(2, 3, ["because_type"]), sequences, 7, NOW).orderBy("rank").collect()
    )
    assert first["reason"] == "because you clicked Lamp"
    assert second["reason"] == "popular lately"
    assert (first["model_version"], first["history_time"], first["generated_at"]) == (7, datetime(2025, 5, 5), NOW)
    assert list(first.asDict()) == schemas.columns("topn")
