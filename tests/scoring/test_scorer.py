"""From users to lists: the ladder, what must not be shown, and the sections beside a Top-N."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from headwater.config import Exclusion, FurtherList, Topn
from headwater.models import ModelSpec, build
from headwater.models.ranker import Ranker
from headwater.models.transitions import count
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.lists import LISTS
from headwater.scoring.repeats import Intervals
from headwater.scoring.scorer import Scorer
from headwater.training import artifact

ITEMS, DAY = 30, 86_400.0
WALK = np.array([[(start + step) % ITEMS + 1 for step in range(6)] for start in range(ITEMS)])
FURTHER = (
    FurtherList(kind="because", n=4, count=2),
    FurtherList(kind="new", n=3, days=7),
    FurtherList(kind="category", n=4),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A hybrid over 30 items, each mostly followed by the next one; the catalogue has grown to 34 since."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("model") / "model"
    spec = ModelSpec("sasrec", n_items=ITEMS, max_length=6, dim=8, layers=1, heads=1)
    facts = {"blend": {"transitions": 20.0, "recency": 0.1}}
    weights = {name: tensor.clone() for name, tensor in build(spec).state_dict().items()}
    artifact.save(folder, weights, spec, facts, count(WALK, ITEMS))
    return folder


def catalogue(sold_out=()):
    size = ITEMS + 5
    available = np.arange(size) > 0
    available[list(sold_out)] = False
    categories = np.arange(size, dtype=np.int32)[:, None] % 2 + 1
    categories[0] = 0
    first_seen = np.where(np.arange(size) > ITEMS - 2, 30 * DAY, 0.0)
    popular = np.where(np.arange(size) > 0, np.arange(size, 0, -1.0), 0.0)
    return Catalogue(available, popular, categories, first_seen, np.array(["", "even", "odd"]))


def users(*histories):
    return pd.DataFrame(
        {
            "user_id": [f"u{k}" for k in range(len(histories))],
            "item_idx": [np.array(history, dtype=np.int32) for history in histories],
            "event_type": [np.array(["view"] * len(history), dtype=object) for history in histories],
            "at": [np.arange(len(history)) * DAY for history in histories],
            "seen_items": [np.unique(np.array(history, dtype=np.int32)) for history in histories],
        }
    )


def listed(frame, user, section=0):
    rows = frame[(frame["user_id"] == user) & (frame["section"] == section)]
    assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
    return rows


def test_a_known_history_is_answered_by_the_model_and_what_follows_stands_first(model):
    rows = listed(Scorer(Ranker.open(model), catalogue(), Topn(n=5)).lists(users([4, 5, 6])), "u0")
    assert list(rows.columns) == [part.split()[0] for part in LISTS.split(", ")]
    assert rows["item_idx"].iloc[0] == 7
    assert set(rows["strategy"]) == {"sasrec+transitions"}
    assert rows["because_idx"].iloc[0] == 6
    assert rows["score"].is_monotonic_decreasing
    assert not set(rows["item_idx"]) & {4, 5, 6}


def test_what_is_sold_out_or_seen_stands_in_no_list(model):
    scorer = Scorer(Ranker.open(model), catalogue(sold_out=[7, 8, 1, 2, 3]), Topn(n=10, sections=FURTHER))
    frame = scorer.lists(users([4, 5, 6], [33], []))
    assert not set(frame["item_idx"]) & {7, 8, 1, 2, 3}
    assert not set(frame.loc[frame["user_id"] == "u0", "item_idx"]) & {4, 5, 6}


def test_seen_items_come_again_where_a_shop_wants_it(model):
    again = Scorer(Ranker.open(model), catalogue(), Topn(n=30, exclude_seen=False)).lists(users([4, 5, 6]))
    assert set(again["item_idx"]) >= {4, 5, 6}


def test_a_history_that_the_model_does_not_know_is_answered_from_its_category(model):
    rows = listed(Scorer(Ranker.open(model), catalogue(), Topn(n=20)).lists(users([31])), "u0")
    odd = [item for item in range(1, ITEMS + 5) if item % 2 and item != 31]
    assert rows["item_idx"].tolist()[: len(odd)] == odd
    assert set(rows["strategy"][: len(odd)]) == {"category_popular"}
    assert set(rows["otherwise"][: len(odd)]) == {"popular in odd"}
    assert set(rows["strategy"][len(odd) :]) == {"recent_popular"}
    assert rows["score"].is_monotonic_decreasing
    assert rows["item_idx"].is_unique


def test_without_any_history_the_list_is_what_is_popular(model):
    rows = listed(Scorer(Ranker.open(model), catalogue(), Topn(n=3)).lists(users([])), "u0")
    assert rows["item_idx"].tolist() == [1, 2, 3]
    assert set(rows["otherwise"]) == {"popular lately"}


def test_a_list_is_shorter_than_n_only_where_the_catalogue_is(model):
    rows = listed(Scorer(Ranker.open(model), catalogue(), Topn(n=50)).lists(users([4, 5, 6])), "u0")
    assert sorted(rows["item_idx"]) == [item for item in range(1, ITEMS + 5) if item not in (4, 5, 6)]


def test_no_list_has_more_of_a_category_than_the_cap_whatever_rung_fills_it(model):
    frame = Scorer(Ranker.open(model), catalogue(), Topn(n=6, max_per_category=2)).lists(users([4, 5, 6], [31], []))
    for user, strategies in (
        ("u0", {"sasrec+transitions"}),
        ("u1", {"category_popular", "recent_popular"}),
        ("u2", {"recent_popular"}),
    ):
        rows = listed(frame, user)
        assert rows["item_idx"].mod(2).value_counts().tolist() == [2, 2]
        assert set(rows["strategy"]) == strategies


def test_what_was_bought_comes_again_after_its_days_and_what_was_viewed_at_once(model):
    topn = Topn(n=34, exclude_seen=False, exclude=[{"event_types": ["purchase"], "days": 2}])
    walked = users([4, 5, 6, 7])  # a day apart, until day 3
    walked["event_type"] = [np.array(["purchase", "view", "purchase", "view"], dtype=object)]
    shown = Scorer(Ranker.open(model), catalogue(), topn).lists(walked)
    assert sorted(set(range(1, ITEMS + 5)) - set(shown["item_idx"])) == [6]


def test_what_is_due_again_stands_in_the_list_and_says_so(model):
    bought = users([4, 5, 4, 6])
    bought["event_type"] = [np.array(["purchase", "view", "purchase", "view"], dtype=object)]
    bought["at"] = [np.array([0, 1, 10, 11]) * DAY]
    days, share = np.zeros((2, ITEMS + 5))
    days[4], share[4] = 10, 1
    due = replace(catalogue(), until=20 * DAY, again=Intervals(days, share))
    topn = Topn(n=5, exclude_seen=False, repeat={"weight": 100.0})
    rows = listed(Scorer(Ranker.open(model), due, topn).lists(bought), "u0")
    assert rows[["item_idx", "strategy", "because_idx"]].iloc[0].tolist() == [4, "buy_again", 4]
    assert set(rows["strategy"][1:]) == {"sasrec+transitions"}
    held_back = topn.model_copy(update={"exclude": (Exclusion(event_types=["purchase"], days=11),)})
    assert 4 not in Scorer(Ranker.open(model), due, held_back).lists(bought)["item_idx"].tolist()


def test_sections_have_their_kind_their_order_and_no_item_twice(model):
    frame = Scorer(Ranker.open(model), catalogue(), Topn(n=5, sections=FURTHER)).lists(users([4, 5, 11], [12], []))
    first, second = listed(frame, "u0", 1), listed(frame, "u0", 2)
    assert (set(first["because_idx"]), set(second["because_idx"])) == ({11}, {5})
    assert set(listed(frame, "u0", 3)["item_idx"]) <= {29, 30, 31, 32, 33, 34}
    assert set(listed(frame, "u0", 4)["otherwise"]) == {"popular in odd"}
    assert listed(frame, "u1", 2).empty  # one event, one anchor
    assert set(frame.loc[frame["user_id"] == "u2", "section"]) <= {0, 3}  # without a history only what is new
    for _, rows in frame.groupby("user_id"):
        assert rows["item_idx"].is_unique


def test_a_section_of_two_is_left_out(model):
    further = (FurtherList(kind="new", n=2, days=7),)
    assert set(
        Scorer(Ranker.open(model), catalogue(), Topn(n=5, sections=further)).lists(users([4, 5]))["section"]
    ) == {0}


def test_lists_do_not_depend_on_who_is_scored_beside(model):
    scorer = Scorer(Ranker.open(model), catalogue(), Topn(n=5, sections=FURTHER, variety_weight=0.3))
    together = scorer.lists(users([4, 5, 6], [12], [1, 2, 3, 9, 8], [33]))
    alone = scorer.lists(users([4, 5, 6]))
    beside = together[together["user_id"] == "u0"].reset_index(drop=True)
    pd.testing.assert_frame_equal(beside, alone.reset_index(drop=True), rtol=1e-5)
