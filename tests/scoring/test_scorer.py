"""From users to lists: fallbacks, exclusions, and the sections beside a Top-N."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from headwater.config import Exclusion, FurtherList, Repeat, Topn
from headwater.models import ModelSpec, build, repeats
from headwater.models.transitions import count
from headwater.schemas import EVENT_TYPES
from headwater.scoring import indexed
from headwater.scoring.catalogue import Catalogue
from headwater.scoring.places import PLACES
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
    """A hybrid over 30 items, each mostly followed by the next one; the catalogue has since grown to 34."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("model") / "model"
    spec = ModelSpec("sasrec", n_items=ITEMS, max_length=6, dim=8, layers=1, heads=1)
    facts = {"blend": {"transitions": 4.0, "recency": 0.1}}
    weights = {name: tensor.clone() for name, tensor in build(spec).state_dict().items()}
    artifact.save(folder, weights, spec, facts, {"transitions": count(WALK, ITEMS)})
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
            "value": [np.full(len(history), np.nan) for history in histories],
            "seen_items": [np.unique(np.array(history, dtype=np.int32)) for history in histories],
        }
    )


def listed(frame, user, section=0):
    rows = frame[(frame["user_id"] == user) & (frame["section"] == section)]
    assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
    return rows


def test_a_known_history_is_ranked_by_the_model_with_the_usual_next_item_first(model):
    rows = listed(Scorer(artifact.ranker(model), catalogue(), Topn(n=5)).lists(users([4, 5, 6])), "u0")
    assert list(rows.columns) == ["user_id", "section", *PLACES]
    assert rows["item_idx"].iloc[0] == 7
    assert set(rows["strategy"]) == {"sasrec+transitions"}
    assert rows["because_idx"].iloc[0] == 6
    assert rows["score"].is_monotonic_decreasing
    assert not set(rows["item_idx"]) & {4, 5, 6}


def test_an_index_that_probes_all_lists_gives_the_exact_lists(model, tmp_path):
    shown, topn = catalogue(sold_out=[7, 8]), Topn(n=5, boosts={"newness": 1.0}, sections=FURTHER)
    asked = users([4, 5, 6], [12], [1, 2, 3, 9, 8], [33], [])
    assert indexed.make(artifact.ranker(model), shown, topn, tmp_path / "index", asked) == 1.0
    exact = Scorer(artifact.ranker(model), shown, topn).lists(asked)
    found = Scorer(artifact.ranker(model), shown, topn, tmp_path / "index").lists(asked)
    pd.testing.assert_frame_equal(found, exact, rtol=1e-5)


def test_sold_out_and_seen_items_are_in_no_list(model):
    scorer = Scorer(artifact.ranker(model), catalogue(sold_out=[7, 8, 1, 2, 3]), Topn(n=10, sections=FURTHER))
    frame = scorer.lists(users([4, 5, 6], [33], []))
    assert not set(frame["item_idx"]) & {7, 8, 1, 2, 3}
    assert not set(frame.loc[frame["user_id"] == "u0", "item_idx"]) & {4, 5, 6}


def test_seen_items_are_listed_again_without_exclude_seen(model):
    again = Scorer(artifact.ranker(model), catalogue(), Topn(n=30, exclude_seen=False)).lists(users([4, 5, 6]))
    assert set(again["item_idx"]) >= {4, 5, 6}


def test_a_because_section_never_contains_the_item_that_it_is_based_on(model):
    topn = Topn(n=5, exclude_seen=False, sections=FURTHER)
    frame = Scorer(artifact.ranker(model), catalogue(), topn).lists(users([4, 5, 11, 4, 5, 11]))
    rows = listed(frame, "u0", section=1)
    assert set(rows["because_idx"]) == {11}
    assert 11 not in rows["item_idx"].tolist()


def test_what_a_user_had_is_never_new_for_them(model):
    topn = Topn(n=3, exclude_seen=False, sections=[FurtherList(kind="new", n=3, days=7)])
    frame = Scorer(artifact.ranker(model), catalogue(), topn).lists(users([4, 5, 30]))
    assert 30 not in set(listed(frame, "u0", section=1)["item_idx"])
    assert len(listed(frame, "u0", section=1)) == 3


def test_no_reason_and_no_heading_names_an_item_that_the_user_panned(model):
    frame = users([4, 10, 11, 11], [5])
    frame["event_type"] = [
        np.array(kinds, dtype=object) for kinds in (["rating", "rating", "rating", "view"], ["rating"])
    ]
    frame["value"] = [np.array([5.0, np.nan, 2.5, np.nan]), np.array([0.5])]
    named = {}
    for worst in (None, 2.5):
        rows = Scorer(artifact.ranker(model), catalogue(), Topn(n=5, sections=FURTHER, disliked_rating=worst)).lists(
            frame
        )
        named[worst] = {user: set(of_user["because_idx"]) - {0} for user, of_user in rows.groupby("user_id")}
    assert named[None]["u1"] == {5}
    assert 11 in named[None]["u0"]
    assert "u1" not in named[2.5] or not named[2.5]["u1"]
    assert named[2.5]["u0"] <= {4, 10}
    assert named[2.5]["u0"]


def test_after_one_event_what_is_popular_is_listed_as_popular(model):
    rows = listed(Scorer(artifact.ranker(model).without_blend(), catalogue(), Topn(n=30)).lists(users([5])), "u0")
    popular = rows["item_idx"] <= 31  # the thirty most popular that the user has not seen
    assert set(rows.loc[popular, "otherwise"]) == {"popular lately"}
    assert set(rows.loc[popular, "because_idx"]) == {0}


def test_no_reason_and_no_heading_names_a_denied_item(model):
    frame = users([10, 11], [5])
    secret = replace(catalogue(sold_out=(11, 5)), denied=np.array([5, 11]))
    open_rows, rows = (
        Scorer(artifact.ranker(model), goods, Topn(n=5, sections=FURTHER)).lists(frame)
        for goods in (replace(secret, denied=np.empty(0, np.int64)), secret)
    )
    assert {5, 11} <= set(open_rows["because_idx"])
    assert set(rows["because_idx"]) == {0, 10}
    assert open_rows[open_rows["section"] == 0]["item_idx"].tolist() == rows[rows["section"] == 0]["item_idx"].tolist()
    assert set(listed(rows, "u0", 1)["because_idx"]) == {10}, "the heading names the event before"


def test_truncation_is_judged_by_the_maximum_length_of_the_table_and_not_of_the_model(model):
    """A purchase, then four views of the same item. If the table keeps only four events, the purchase may have been cut off."""
    topn = Topn(n=30, exclude_seen=False, exclude=[{"event_types": ["purchase"], "days": 30}])
    viewed = users([4, 4, 4, 4])

    def lists(**length):
        return set(Scorer(artifact.ranker(model), catalogue(), topn, **length).lists(viewed)["item_idx"])

    assert 4 in lists(max_length=5)
    assert 4 not in lists(max_length=4)


def test_a_history_unknown_to_the_model_gets_popular_items_of_its_category(model):
    rows = listed(Scorer(artifact.ranker(model), catalogue(), Topn(n=20)).lists(users([31])), "u0")
    odd = [item for item in range(1, ITEMS + 5) if item % 2 and item != 31]
    assert rows["item_idx"].tolist()[: len(odd)] == odd
    assert set(rows["strategy"][: len(odd)]) == {"category_popular"}
    assert set(rows["otherwise"][: len(odd)]) == {"popular in odd"}
    assert set(rows["strategy"][len(odd) :]) == {"recent_popular"}
    assert rows["score"].is_monotonic_decreasing
    assert rows["item_idx"].is_unique


def test_without_a_history_the_list_holds_popular_items(model):
    rows = listed(Scorer(artifact.ranker(model), catalogue(), Topn(n=3)).lists(users([])), "u0")
    assert rows["item_idx"].tolist() == [1, 2, 3]
    assert set(rows["otherwise"]) == {"popular lately"}


def test_a_list_is_shorter_than_n_only_if_the_catalogue_runs_out(model):
    rows = listed(Scorer(artifact.ranker(model), catalogue(), Topn(n=50)).lists(users([4, 5, 6])), "u0")
    assert sorted(rows["item_idx"]) == [item for item in range(1, ITEMS + 5) if item not in (4, 5, 6)]


def test_the_category_cap_holds_for_every_strategy(model):
    frame = Scorer(artifact.ranker(model), catalogue(), Topn(n=6, max_per_category=2)).lists(users([4, 5, 6], [31], []))
    for user, strategies in (
        ("u0", {"sasrec+transitions"}),
        ("u1", {"category_popular", "recent_popular"}),
        ("u2", {"recent_popular"}),
    ):
        rows = listed(frame, user)
        assert rows["item_idx"].mod(2).value_counts().tolist() == [2, 2]
        assert set(rows["strategy"]) == strategies


def test_bought_items_are_listed_again_after_the_days_of_the_rule_and_viewed_items_at_once(model):
    topn = Topn(n=34, exclude_seen=False, exclude=[{"event_types": ["purchase"], "days": 2}])
    walked = users([4, 5, 6, 7])  # one day apart, the last on day 3
    walked["event_type"] = [np.array(["purchase", "view", "purchase", "view"], dtype=object)]
    shown = Scorer(artifact.ranker(model), catalogue(), topn).lists(walked)
    assert sorted(set(range(1, ITEMS + 5)) - set(shown["item_idx"])) == [6]


def test_frequent_items_come_first_with_themselves_as_reason_up_to_max_repeats(model, tmp_path):
    trained, facts = artifact.load(model)
    parts = {"transitions": count(WALK, ITEMS), "repeats": repeats.of(ITEMS, window=6)}
    facts["blend"] = {"transitions": 0.1, "repeats": 20.0, "recency": 0.1}
    artifact.save(tmp_path, trained.state_dict(), trained.spec, facts, parts)
    topn = Topn(n=5, exclude_seen=False, repeat={"weight": 0}, variety_weight=0)
    rows = listed(Scorer(artifact.ranker(tmp_path), catalogue(), topn).lists(users([9, 4, 5, 4, 9, 4])), "u0")
    assert rows["item_idx"][:3].tolist() == [4, 9, 5]
    assert (rows["because_idx"] == rows["item_idx"]).tolist() == [True] * 3 + [False] * 2
    few = topn.model_copy(update={"max_repeats": 2})
    fewer = listed(Scorer(artifact.ranker(tmp_path), catalogue(), few).lists(users([9, 4, 5, 4, 9, 4])), "u0")
    assert fewer["item_idx"][:2].tolist() == [4, 9]
    assert fewer["item_idx"][2:4].tolist() == rows["item_idx"][3:].tolist()  # the items below have moved up
    assert not set(fewer["item_idx"][2:]) & {4, 5, 9}
    few = Topn(n=ITEMS + 4, exclude_seen=False, max_repeats=2)
    assert (
        len(Scorer(artifact.ranker(tmp_path), catalogue(), few).lists(users([9, 4, 5]))) == ITEMS + 4
    )  # nothing else is left
    for rules in ({"max_per_category": 4}, {"explore": {"share": 0.3, "events": 40}}):
        few = Topn(n=8, exclude_seen=False, max_repeats=1, repeat={"weight": 0}, **rules)
        frame = Scorer(artifact.ranker(tmp_path), catalogue(), few).lists(users([9, 4, 5, 6, 8, 3], [33, 32]))
        assert len(frame) == 16
        assert len(set(listed(frame, "u0")["item_idx"]) & {9, 4, 5, 6, 8, 3}) <= 1
        assert len(set(listed(frame, "u1")["item_idx"]) & {33, 32}) <= 1
    capped = Topn(n=4, exclude_seen=False, max_per_category=2, explore={"share": 0.3, "events": 40})
    shown = Scorer(artifact.ranker(tmp_path), catalogue(), capped).lists(users([9, 4, 5, 6], [33, 32]))
    assert set(shown.groupby("user_id")["item_idx"].agg(lambda items: (items % 2).sum())) == {2}


def test_items_due_for_a_repeat_purchase_are_listed_with_strategy_buy_again(model):
    bought = users([4, 5, 4, 6])
    bought["event_type"] = [np.array(["purchase", "view", "purchase", "view"], dtype=object)]
    bought["at"] = [np.array([0, 1, 10, 11]) * DAY]
    days, share = np.zeros((2, ITEMS + 5))
    days[4], share[4] = 10, 1
    due = replace(catalogue(), until=20 * DAY, intervals=Intervals(days, share))
    topn = Topn(n=5, exclude_seen=False, repeat={"weight": 100.0})
    rows = listed(Scorer(artifact.ranker(model), due, topn).lists(bought), "u0")
    assert rows[["item_idx", "strategy", "because_idx"]].iloc[0].tolist() == [4, "buy_again", 4]
    assert set(rows["strategy"][1:]) == {"sasrec+transitions"}
    done = topn.model_copy(update={"repeat": Repeat(weight=100.0, event_types=("view", "purchase"))})
    viewed = bought.assign(event_type=[np.array(["purchase", "view", "view", "view"], dtype=object)])
    for history, type_said in ((bought, "purchase"), (viewed, "view")):
        row = listed(Scorer(artifact.ranker(model), due, done).lists(history), "u0").iloc[0]
        assert (row["item_idx"], EVENT_TYPES[row["because_type"] - 1]) == (4, type_said)
    held_back = topn.model_copy(update={"exclude": (Exclusion(event_types=["purchase"], days=11),)})
    assert 4 not in Scorer(artifact.ranker(model), due, held_back).lists(bought)["item_idx"].tolist()


GROUPS = [
    {"name": "even", "when": {"category": "even", "min_share": 0.9}, "categories": ["even"], "variety_weight": 0.0},
    {"name": "short", "when": {"max_events": 2}, "explore": {"share": 0.3, "events": 40}},
]


def test_each_group_has_lists_by_its_own_rules_and_rows_name_the_group(model):
    scorer = Scorer(artifact.ranker(model), catalogue(), Topn(n=10, strategies=GROUPS, sections=FURTHER))
    frame = scorer.lists(users([2, 4, 6], [5, 8], [4, 5, 6], [33]))
    even = frame[frame["user_id"] == "u0"]
    assert (even["item_idx"] % 2 == 0).all()
    assert set(even.loc[even["section"] == 0, "strategy"]) == {"even: sasrec+transitions"}
    short = listed(frame, "u1")
    assert short["strategy"].tolist() == ["short: sasrec+transitions"] * 7 + ["short: explore"] * 3
    assert set(listed(frame, "u2")["strategy"]) == {"sasrec+transitions"}
    assert listed(frame, "u3")["strategy"].iloc[0] == "short: category_popular"


def test_lists_of_a_group_do_not_depend_on_the_other_users_in_the_batch(model):
    scorer = Scorer(artifact.ranker(model), catalogue(), Topn(n=10, strategies=GROUPS, sections=FURTHER))
    together = scorer.lists(users([5, 8], [2, 4, 6], [4, 5, 6], [33], []))
    alone = scorer.lists(users([5, 8]))
    beside = together[together["user_id"] == "u0"].reset_index(drop=True)
    pd.testing.assert_frame_equal(beside, alone.reset_index(drop=True), rtol=1e-5)


def test_propensities_are_below_one_only_at_explored_places_and_missing_without_exploration(model):
    topn = Topn(n=10, explore={"share": 0.1, "events": 40})
    rows = listed(Scorer(artifact.ranker(model), catalogue(), topn).lists(users([4, 5, 6])), "u0")
    assert rows["propensity"].tolist() == [1.0] * 9 + [1 / 20]
    assert rows["strategy"].iloc[9] == "explore"
    assert rows["item_idx"].is_unique
    assert rows["score"].is_monotonic_decreasing
    assert Scorer(artifact.ranker(model), catalogue(), Topn(n=5)).lists(users([4, 5]))["propensity"].isna().all()


def test_items_without_any_event_are_explored_as_often_as_those_with_a_few(model):
    goods = catalogue()
    unmet = np.arange(ITEMS + 1, ITEMS + 5)
    goods.popular[unmet] = 0
    scorer = Scorer(artifact.ranker(model), goods, Topn(n=5, explore={"share": 0.2, "events": 40}))
    rows = scorer.lists(users(*([1 + k % 20, 2 + k % 20] for k in range(400))))
    explored = rows[rows["strategy"] == "explore"]["item_idx"]
    assert len(explored) == 400
    assert explored.isin(unmet).mean() == pytest.approx(4 / 14, abs=0.08)  # all four, and the ten best of the others


def test_a_calibrated_list_follows_the_categories_of_the_history(model):
    def evens(history):
        topn = Topn(n=10, variety="calibrated", variety_weight=0.99)
        shown = listed(Scorer(artifact.ranker(model), catalogue(), topn).lists(users(history)), "u0")
        return int((shown["item_idx"] % 2 == 0).sum())

    assert (evens([2, 4, 6, 8, 1]), evens([1, 3, 5, 7, 2])) == (8, 2)


def test_a_boost_changes_which_items_are_listed_and_not_only_their_order(model):
    dear = replace(catalogue(), price=np.where(np.arange(ITEMS + 5) == 20, 100.0, 1.0))
    plain = listed(Scorer(artifact.ranker(model), dear, Topn(n=5)).lists(users([4, 5, 6])), "u0")
    assert 20 not in plain["item_idx"].tolist()
    boosted = Topn(n=5, boosts={"price": 10.0}, variety_weight=0.0)
    assert listed(Scorer(artifact.ranker(model), dear, boosted).lists(users([4, 5, 6])), "u0")["item_idx"].iloc[0] == 20


def blended(model, **weights):
    ranker = artifact.ranker(model)
    ranker.facts["blend"] = {"transitions": 20.0, "recency": 0.1} | weights
    return ranker


def test_items_listed_for_popularity_say_so_and_others_name_an_event(model):
    ranker = blended(model, transitions=1.0, recency=9.0)
    rows = listed(Scorer(ranker, catalogue(), Topn(n=5)).lists(users([1, 6])), "u0").set_index("item_idx")
    popular = rows[rows.index.isin([2, 3, 4, 5, 7])]  # the most popular that the user has not seen
    assert set(popular["because_idx"]) == {0}
    assert set(popular["otherwise"]) == {"popular lately"}
    assert rows.loc[8, "because_idx"] == 6  # popular too, but five other items are more popular


def test_a_popular_item_names_the_event_that_raised_it_more_than_popularity(model):
    personal = listed(Scorer(blended(model), catalogue(), Topn(n=3)).lists(users([6])), "u0")
    assert (personal["item_idx"].iloc[0], personal["because_idx"].iloc[0]) == (7, 6)


def test_without_a_popular_share_no_reason_mentions_popularity(model):
    quiet = Topn(n=5, boosts={"popular_share": 0.0})
    rows = listed(Scorer(blended(model, recency=9.0), catalogue(), quiet).lists(users([1, 6])), "u0")
    assert "popular lately" not in set(rows["otherwise"])


def test_without_a_popular_share_the_lists_of_users_differ_more(model):
    histories = [[start, start + 1] for start in range(5, 25, 4)]

    def shown(**boosts):
        topn = Topn(n=3, variety_weight=0.0, boosts=boosts)
        return set(
            Scorer(blended(model, transitions=0.1, recency=9.0), catalogue(), topn).lists(users(*histories))["item_idx"]
        )

    assert len(shown()) < len(shown(popular_share=0.0))


def test_an_item_newer_than_the_model_can_be_listed_by_the_model(model):
    grown = replace(catalogue(), popular=np.where(np.arange(ITEMS + 5) == 32, 1e6, 1.0))
    rows = listed(Scorer(blended(model, recency=3.0), grown, Topn(n=5)).lists(users([4, 5, 6])), "u0")
    assert rows.loc[rows["item_idx"] == 32, "strategy"].tolist() == ["sasrec+transitions"]


def test_sections_have_the_configured_kinds_and_order_and_repeat_no_item(model):
    frame = Scorer(artifact.ranker(model), catalogue(), Topn(n=5, sections=FURTHER)).lists(users([4, 5, 11], [12], []))
    first, second = listed(frame, "u0", 1), listed(frame, "u0", 2)
    assert (set(first["because_idx"]), set(second["because_idx"])) == ({11}, {5})
    assert set(listed(frame, "u0", 3)["item_idx"]) <= {29, 30, 31, 32, 33, 34}
    assert set(listed(frame, "u0", 4)["otherwise"]) == {"popular in odd"}
    assert listed(frame, "u1", 2).empty  # one event gives one anchor
    assert set(frame.loc[frame["user_id"] == "u2", "section"]) <= {0, 3}  # without a history, only new items
    for _, rows in frame.groupby("user_id"):
        assert rows["item_idx"].is_unique


@pytest.mark.parametrize(("n", "sections"), [(3, {0}), (2, {0, 1})])
def test_a_section_with_only_two_items_is_left_out_unless_its_n_is_two(model, n, sections):
    further = (FurtherList(kind="new", n=n, days=7),)
    goods = catalogue(sold_out=(29, 30, 31, 32))
    frame = Scorer(artifact.ranker(model), goods, Topn(n=5, sections=further)).lists(users([4, 5, 33, 34], [33]))
    assert set(frame.loc[frame["user_id"] == "u0", "section"]) == {0}
    frame = Scorer(artifact.ranker(model), goods, Topn(n=1, sections=further)).lists(users([4, 5]))
    assert set(frame["section"]) == sections


def test_a_group_that_is_denied_the_only_item_gets_no_list(model):
    rules = Topn(n=5, strategies=[{"name": "short", "when": {"max_events": 2}, "deny": ["x"]}])
    only = replace(catalogue(sold_out=range(2, ITEMS + 5)), denied_to={"short": np.array([1])})
    frame = Scorer(artifact.ranker(model), only, rules).lists(users([4, 5], [4, 5, 6]))
    assert frame["user_id"].tolist() == ["u1"]


def test_lists_do_not_depend_on_the_other_users_in_the_batch(model):
    scorer = Scorer(artifact.ranker(model), catalogue(), Topn(n=5, sections=FURTHER, variety_weight=0.3))
    together = scorer.lists(users([4, 5, 6], [12], [1, 2, 3, 9, 8], [33]))
    alone = scorer.lists(users([4, 5, 6]))
    beside = together[together["user_id"] == "u0"].reset_index(drop=True)
    pd.testing.assert_frame_equal(beside, alone.reset_index(drop=True), rtol=1e-5)
