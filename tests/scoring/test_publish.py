"""Changes to topn: rows to write, ranks to withdraw, changed users, and lists that must never be published."""

from datetime import datetime

import pytest

from headwater import schemas
from headwater.config import Wording
from headwater.scoring import publish
from headwater.scoring.executors import LISTS
from headwater.scoring.places import PLACES

NOW = datetime(2026, 1, 1)
KNOWN = datetime(2025, 5, 5)
TITLED = ", ".join(
    ["user_id string, history_time timestamp, section int"]
    + [f"{name} {kind}" for name, kind in PLACES.items()]
    + ["item_id string, because_title string"]
)
"""The schema of places with item ids and titles."""


def rows(spark, *lists):
    full = [(user, rank, item, score, "r", "s", 1, NOW, NOW, None) for user, rank, item, score in lists]
    return spark.createDataFrame(full, schemas.ddl("topn"))


def pairs(frame):
    return sorted((row["user_id"], row["rank"], row["item_id"]) for row in frame.collect())


def test_a_shorter_list_deletes_its_last_ranks(spark):
    current = rows(spark, ("u", 1, "a", 2.0), ("u", 2, "b", 1.0))
    new = rows(spark, ("u", 1, "b", 3.0))
    changes = publish.with_deletions(new, current, schemas.KEYS["topn"]).collect()
    assert sorted((row["user_id"], row["rank"], row["item_id"] or "") for row in changes) == [
        ("u", 1, "b"),
        ("u", 2, ""),
    ]


def test_a_user_is_changed_if_the_items_or_their_order_changed(spark):
    current = rows(
        spark,
        ("same", 1, "a", 2.0),
        ("same", 2, "b", 1.0),
        ("swapped", 1, "a", 2.0),
        ("swapped", 2, "b", 1.0),
        ("gone", 1, "a", 2.0),
    )
    new = rows(
        spark,
        ("same", 1, "a", 9.0),
        ("same", 2, "b", 8.0),
        ("swapped", 1, "b", 2.0),
        ("swapped", 2, "a", 1.0),
        ("new", 1, "a", 1.0),
    )
    assert {row["user_id"] for row in publish.changed_users(new, current).collect()} == {"swapped", "new", "gone"}


def lists_of(spark, *lists):
    """Rows of LISTS, each given as a user and the ranks, items and scores of its places."""
    made = []
    for user, ranks, items, scores in lists:
        zeros, words = [0] * len(ranks), [""] * len(ranks)
        made.append((user, NOW, 0, ranks, items, scores, [None] * len(ranks), words, zeros, zeros, words))
    return spark.createDataFrame(made, LISTS)


@pytest.mark.parametrize(
    "bad",
    [
        [("u", [1, 2], [1, 2], [float("nan"), 1.0])],
        [("u", [1, 2], [1, 2], [float("-inf"), 1.0])],
        [("u", [1, 2], [1, 2], [2.0, None])],
        [("u", [1, 2], [1, 1], [2.0, 1.0])],
        [("u", [1, 2], [1, 3], [2.0, 1.0])],
        [("u", [1, 2], [1, 0], [2.0, 1.0])],
        [("u", [1, 3], [1, 2], [2.0, 1.0])],
        [("u", [1, 1], [1, 2], [2.0, 1.0])],
        [("u", [], [], [])],
        [("u", [1], [1], [2.0]), ("u", [1], [2], [2.0])],
    ],
    ids=[
        "not a number",
        "infinite",
        "no score",
        "an item twice",
        "an unknown item",
        "no item",
        "a gap",
        "a rank twice",
        "empty",
        "two lists",
    ],
)
def test_an_invalid_list_is_found(spark, bad):
    good = ("v", [1, 2], [1, 2], [2.0, 1.0])
    assert [row["user_id"] for row in publish.unfit(lists_of(spark, good, *bad), 2).collect()] == ["u"]


def test_rows_carry_the_reason_the_history_time_and_the_columns_in_order(spark):
    lists = spark.createDataFrame(
        [
            ("u", KNOWN, 0, 1, 5, 2.0, None, "sasrec", 3, 3, "", "i5", "Lamp"),
            ("u", KNOWN, 0, 2, 6, 1.0, None, "recent_popular", 0, 0, "popular lately", "i6", None),
            ("u", KNOWN, 0, 3, 7, 0.5, None, "sasrec", 3, 2, "popular lately", "i7", "Lamp"),
            ("u", KNOWN, 0, 4, 3, 0.2, None, "buy_again", 3, 5, "", "i3", "Lamp"),
            ("u", KNOWN, 1, 1, 8, 0.5, None, "because", 3, 1, "", "i8", "Lamp"),
        ],
        TITLED,
    )
    found = publish.stamped(publish.topn_rows(publish.with_reasons(lists, Wording())), "topn", 7, NOW)
    first, second, third, fourth = found.orderBy("rank").collect()
    assert first["reason"] == "because you clicked Lamp"
    assert second["reason"] == "popular lately"
    assert third["reason"] == "because you searched for Lamp"
    assert fourth["reason"] == "because you bought it before"
    assert (first["model_version"], first["history_time"], first["generated_at"]) == (7, KNOWN, NOW)
    assert list(first.asDict()) == schemas.columns("topn")


def test_sections_are_numbered_without_gaps_and_have_a_heading_by_their_kind(spark):
    lists = spark.createDataFrame(
        [
            ("u", KNOWN, 0, 1, 4, 2.0, None, "sasrec", 3, 3, "", "i4", "Lamp"),
            ("u", KNOWN, 2, 1, 5, 2.0, None, "because", 3, 1, "", "i5", "Lamp"),
            ("u", KNOWN, 3, 1, 6, 1.0, None, "new", 0, 0, "new in the catalogue", "i6", None),
            ("u", KNOWN, 5, 1, 7, 0.5, None, "category_popular", 0, 0, "popular in écrans", "i7", None),
            ("v", KNOWN, 3, 1, 6, 1.0, None, "new", 0, 0, "new in the catalogue", "i6", None),
        ],
        TITLED,
    )
    found = publish.stamped(publish.section_rows(publish.with_reasons(lists, Wording()), Wording()), "sections", 7, NOW)
    assert found.columns == schemas.columns("sections")
    assert sorted((row["user_id"], row["section"], row["heading"], row["item_id"]) for row in found.collect()) == [
        ("u", 1, "Because you viewed Lamp", "i5"),
        ("u", 2, "New for you", "i6"),
        ("u", 3, "Popular in écrans", "i7"),
        ("v", 1, "New for you", "i6"),
    ]


def test_reasons_and_headings_are_in_the_words_of_the_config(spark):
    german = Wording(because={"view": "weil du {} angesehen hast"}, again="das schon", new_heading="Neu für dich")
    lists = spark.createDataFrame(
        [
            ("u", KNOWN, 1, 1, 5, 2.0, None, "because", 3, 1, "", "i5", "Lamp"),
            ("u", KNOWN, 1, 2, 3, 1.0, None, "because", 3, 1, "", "i3", "Lamp"),
            ("u", KNOWN, 2, 1, 6, 1.0, None, "new", 0, 0, "neu", "i6", None),
        ],
        TITLED,
    )
    found = publish.section_rows(publish.with_reasons(lists, german), german).orderBy("section", "rank")
    assert [(row["reason"], row["heading"]) for row in found.collect()] == [
        ("weil du Lamp angesehen hast", "Weil du Lamp angesehen hast"),
        ("weil du das schon angesehen hast", "Weil du das schon angesehen hast"),
        ("neu", "Neu für dich"),
    ]
