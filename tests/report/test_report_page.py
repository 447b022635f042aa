"""The whole page from a small warehouse, from an empty one, and without MLflow."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlparse

import pytest

from headwater import report, schemas
from headwater.config import Config
from headwater.evaluation.protocol import BASELINES, SEQUENCE_MODEL
from headwater.report import data, quality, sections
from headwater.report import page as report_page
from headwater.report.runs import Runs, read_runs
from headwater.scoring.served import SERVED
from headwater.tables import Warehouse

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
MADE = NOW - timedelta(minutes=30)
EVIL = '<script src="https://x.org/a.js"></script>'


@pytest.fixture(scope="module")
def full(spark, tmp_path_factory):
    """Three users, one of them behind and one without a list; two items in lists; feedback, metrics, decisions."""
    warehouse = Warehouse(spark, str(tmp_path_factory.mktemp("report") / "warehouse"), 60)

    def put(table, *rows, **note):
        frame = spark.createDataFrame(list(rows), schemas.ddl(table))
        warehouse.append(frame, table, {"job": "tests"} | note)

    def at(hours):
        return MADE - timedelta(hours=hours)

    put("items", *[(f"i{k}", k, title, "c", None, None, True, NOW) for k, title in ((1, "Dune"), (2, EVIL), (3, None))])
    put("events", *[
        (f"e{k}", "ann", "i1", "view", NOW, None, None, None, "s", "f", NOW, NOW.date()) for k in range(4)
    ], job="ingest_events", so_far=dict(zip(data.INGEST_COUNTS, (10, 4, 3, 2, 1), strict=True)))  # fmt: skip
    put("quarantine", *[("raw", reason, "s", "f", NOW) for reason in ("bad_json", "bad_json", "bot_agent")])
    put("sequences", *[
        (user, [1, 2, 3], ["view", "click", "purchase"], [at(5), at(4), at(last)], ["a", "b", "c"], [None] * 3, [1],
         at(last), MADE - timedelta(seconds=90))
        for user, last in (("ann", 2), ("bob", 2), ("cat", 2))
    ])  # fmt: skip
    lists = [
        (user, rank, item, 1.0, f"because of {EVIL}", "model", 3, known, MADE, None)
        for user, known in (("ann", at(2)), ("bob", at(30)))
        for rank, item in ((1, "i1"), (2, "i2"))
    ]
    put("topn", *lists)
    put("topn_history", *lists)
    put("feedback", ("e1", "ann", "i1", "click", NOW, 1, 3, None, 1.0, MADE, NOW),
        ("e2", "ann", "i1", "purchase", NOW, 1, 3, None, 4.0, MADE, NOW))  # fmt: skip
    put("model_metrics", *[
        (version, model, "temporal", "test", "all", "ndcg", k, value, 40, beside, when)
        for version, model, beside, value, when in (
            (3, "sasrec", 3, 0.111, at(9)), (3, "sasrec", 3, 0.2, at(1)), (0, "recent_popularity", 3, 0.1, at(1)),
            (0, "popularity", 3, 0.05, at(1)), (2, "sasrec", 2, 0.15, at(20)),
        )
        for k in (5, 10)
    ])  # fmt: skip
    put("promotions", (at(1), "promote", 3, 2, "promoted", "ndcg@10 is better", "{}"))
    return warehouse


@pytest.fixture(scope="module")
def page(full):
    curves = {3: {"loss": [(1, 3.0), (2, 2.0)], "ndcg": [(1, 0.1), (2, 0.2)]}}
    return report.build(full, Runs(champion=3, challenger=3, curves=curves), NOW)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def parsed(page):
    parser = Tags()
    parser.feed(page.html)
    return parser.seen, re.sub(r"\s+", " ", " ".join(parser.text))


def test_the_page_holds_every_section_and_needs_nothing_but_itself(page):
    tags, text = parsed(page)
    assert page.missing == []
    for title in ("The loop", "Freshness", "Quality", "Training", "The gate", "Feedback", "Variety", "A few people"):
        assert title in text
    assert "http://" not in page.html
    assert "https://" not in page.html
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags}
    assert all(value.startswith("#") for _, attrs in tags for name, value in attrs.items() if name in ("href", "src"))


def test_html_in_the_data_is_escaped(page):
    assert EVIL not in page.html
    assert "&lt;script src=&quot;https:&#47;&#47;x.org" in page.html


def test_the_numbers_of_the_page_are_those_of_the_tables(page):
    _, text = parsed(page)
    assert "2 people hold a list of 2." in text
    assert "Model 3 ranks people’s next actions 2.0 times as well as recent popularity." in text
    assert (
        "Of 10 lines read: 4 became events, 3 quarantined (30.0 %), 2 duplicates, 1 ignored (no wanted action)." in text
    )
    assert (
        "The lists show 2 of 3 items (66.7 %). The 2 most shown take 100 % of all places. All places are from one"
        in text
    )
    assert "2 actions on shown items, worth a reward of 5.0" in text


def test_the_loop_section_names_the_jobs_that_have_yet_to_read_a_table(spark, tmp_path):
    warehouse = Warehouse(spark, str(tmp_path / "behind"), 60)
    event = ("e", "ann", "i1", "view", NOW, None, None, None, "s", "f", NOW, NOW.date())
    for _ in range(3):
        warehouse.append(spark.createDataFrame([event], schemas.ddl("events")), "events", {"job": "ingest_events"})
    assert unread(warehouse, "events") == {"build_sequences": None}
    nothing = spark.createDataFrame([], schemas.ddl("sequences"))
    warehouse.append(nothing, "sequences", {"job": "build_sequences", "events_version": 1})
    assert unread(warehouse, "events") == {"build_sequences": 2}
    assert unread(warehouse, "sequences") == {"score_topn": None}
    assert "build_sequences: 2 commits" in report.build(warehouse, Runs(), NOW).html
    warehouse.append(nothing, "sequences", {"job": "build_sequences", "events_version": 3})
    assert unread(warehouse, "events") == {}


def unread(warehouse, table):
    return next(state.unread for state in data.table_states(warehouse) if state.name == table)


def test_freshness_counts_users_who_are_behind_or_have_no_list(full):
    fresh = data.freshness(full)
    assert (fresh.users, fresh.up_to_date, fresh.behind, fresh.without_list) == (3, 1, 1, 1)
    assert fresh.newest_list == MADE.timestamp()
    assert [label for label, count in fresh.ages if count] == ["1–6 hours", "1–7 days"]
    assert (fresh.wait_median, fresh.wait_p95) == (90, 90)


def test_a_list_that_is_made_anew_was_waited_for_only_once(spark, tmp_path):
    warehouse = Warehouse(spark, str(tmp_path / "again"), 60)
    acted = (MADE - timedelta(hours=1),)
    sequence = ("ann", [1], ["view"], acted, ["a"], [None], [1], *acted, MADE - timedelta(seconds=20))
    made = [("ann", 1, "i1", 1.0, "", "model", 3, *acted, MADE + timedelta(hours=night), None) for night in (0, 9)]
    for table, rows in {"sequences": [sequence], "topn": made[1:], "topn_history": made}.items():
        warehouse.append(spark.createDataFrame(rows, schemas.ddl(table)), table, {"job": "tests"})
    fresh = data.freshness(warehouse)
    assert (fresh.up_to_date, fresh.wait_median) == (1, 20)


def test_short_lists_are_shown_with_what_was_measured_at_their_length(spark, tmp_path):
    warehouse = Warehouse(spark, str(tmp_path / "short"), 60)
    rows = [
        (3, model, "temporal", "test", "all", "ndcg", k, k / 100, 40, 3, NOW)
        for model, ks in (("sasrec", (5, 10)), (SERVED, (5,)))
        for k in ks
    ]
    warehouse.append(spark.createDataFrame(rows, schemas.ddl("model_metrics")), "model_metrics", {"job": "tests"})
    assert sorted((row["model"], row["k"]) for row in data.quality(warehouse)) == [(SERVED, 5), ("sasrec", 5)]


def test_only_the_newest_of_two_evaluations_counts_with_k_equal_to_ten(full):
    rows = [(r["version"], r["model"], r["k"], r["value"]) for r in data.quality(full)]
    assert sorted(rows) == [
        (2, "sasrec", 10, 0.15), (3, "popularity", 10, 0.05), (3, "recent_popularity", 10, 0.1), (3, "sasrec", 10, 0.2)
    ]  # fmt: skip


def test_baselines_of_a_hybrid_are_never_mistaken_for_the_hybrid():
    def measured(version, model, value):
        return {
            "version": 3, "model": model, "split": "test", "segment": "all", "metric": "ndcg", "k": 10, "value": value,
            "model_version": version, "protocol": "temporal", "users": 40,
        }  # fmt: skip

    rows = [measured(0, SEQUENCE_MODEL, 0.11), measured(0, SERVED, 0.19), measured(3, "sasrec+ease", 0.22)]
    assert quality.value(rows, 3, "", "ndcg") == 0.22
    assert quality.value(rows, 3, SEQUENCE_MODEL, "ndcg") == 0.11
    shown = quality.section(rows, 3, Runs(champion=3))
    assert re.findall(r"<th[^>]*>([^<]+)</th>", shown)[:3] == ["Model", "As served", "Alone"]
    assert "sasrec+ease · champion" in shown


def test_the_summary_names_a_simple_rule_that_is_better_than_the_model():
    def measured(model, value):
        return {
            "version": 3, "model": model, "metric": "ndcg", "segment": "all", "value": value,
            "model_version": 3 if model == "sasrec" else 0,
        }  # fmt: skip

    head = {"users": 2, "list_length": 2}
    rows = [measured("sasrec", 0.2), measured("recent_popularity", 0.1), measured("popularity", 0.15)]
    assert report_page.summary(head, None, rows, 3).endswith("33% better than popularity.")
    rows.append(measured("item_transitions", 0.22))
    assert "Item transitions, without any training, would rank them 10% better than the model." in report_page.summary(
        head, None, rows, 3
    )


def test_every_baseline_of_the_evaluation_has_a_label_on_the_page():
    assert set(quality.BASELINE_LABELS) == {SERVED, SEQUENCE_MODEL, *BASELINES}


def test_two_actions_on_one_row_are_one_row_acted_on(full):
    rows = data.feedback_by_rank(full)
    assert [(r["rank"], r["shown"], r["actions"], r["rows_acted_on"], r["reward"]) for r in rows] == [
        (1, 2, 2, 1, 5.0), (2, 2, 0, 0, 0.0)
    ]  # fmt: skip


def test_a_champion_older_than_ten_versions_is_still_measured(spark, tmp_path):
    warehouse = Warehouse(spark, str(tmp_path / "old"), 60)
    rows = [
        (version, "sasrec", "temporal", "test", "all", "ndcg", 10, version / 100, 40, version, NOW)
        for version in range(1, 13)
    ]
    warehouse.append(spark.createDataFrame(rows, schemas.ddl("model_metrics")), "model_metrics", {"job": "tests"})
    assert [row["version"] for row in data.quality(warehouse, about=1)] == [1, *range(12, 2, -1)]
    assert "NDCG@10 of model 1 " in report.build(warehouse, Runs(champion=1), NOW).html


@pytest.fixture(scope="module")
def long_lists(spark, tmp_path_factory):
    """Two users with lists of fifty items, and one action on a low rank."""
    warehouse = Warehouse(spark, str(tmp_path_factory.mktemp("report") / "long"), 60)
    lists = [(user, rank, "i1", 1.0, "", "model", 3, NOW, MADE, None) for user in "ab" for rank in range(1, 51)]
    views = ([1] * 3, ["view"] * 3, [NOW] * 3, ["a", "b", "c"], [None] * 3, [1], NOW, NOW)
    for table, rows in {
        "items": [("i1", 1, "Dune", "c", None, None, True, NOW)],
        "sequences": [(user, *views) for user in "ab"],
        "topn": lists,
        "topn_history": lists,
        "feedback": [("e1", "a", "i1", "click", NOW, 45, 3, None, 1.0, MADE, NOW)],
    }.items():
        warehouse.append(spark.createDataFrame(rows, schemas.ddl(table)), table, {"job": "tests"})
    return warehouse


def test_long_lists_do_not_leave_a_shown_user_without_a_list(long_lists):
    assert [len(person.items) for person in data.people(long_lists, count=3)] == [20, 20]


def test_feedback_totals_include_ranks_that_the_figure_does_not_show(long_lists):
    by_rank = data.feedback_by_rank(long_lists)
    shown = sections.feedback(by_rank, data.feedback_by_type(long_lists))
    assert "1 action on shown items, worth a reward of 1.0. Of 100 rows published, 1.00\u00a0% were acted on" in shown
    assert "per thousand published; the first 40 ranks" in shown


def test_users_are_shown_with_item_titles_and_their_last_event_first(full):
    found = {person.user: person for person in data.people(full, events=2)}
    assert set(found) == {"ann", "bob"}
    assert [event["title"] for event in found["ann"].events] == ["i3", EVIL]
    assert [row["title"] for row in found["ann"].items] == ["Dune", EVIL]


def test_without_tables_each_section_names_the_job_to_run(spark, tmp_path):
    empty = report.build(Warehouse(spark, str(tmp_path / "none"), 60), Runs(problem="No run yet."), NOW)
    _, text = parsed(empty)
    assert len(empty.missing) == 8
    for job in ("ingest_events", "score_topn", "evaluate_model", "promote_model"):
        assert f"jobs/{job}.py" in text


def test_a_lost_table_file_affects_only_its_own_section(spark, tmp_path):
    warehouse = Warehouse(spark, str(tmp_path / "lost"), 60)
    for table in schemas.TABLES:
        warehouse.create(table)
    row = ("ann", 1, "i1", 1.0, "", "model", 1, NOW, NOW, None)
    warehouse.append(spark.createDataFrame([row], schemas.ddl("topn")), "topn", {"job": "t"})
    for file in warehouse.read("topn").inputFiles():
        Path(urlparse(file).path).unlink()
    page = report.build(warehouse, Runs(), NOW)
    _, text = parsed(page)
    assert "Nothing to show: the tables cannot be read (" in text
    assert "Variety" in page.missing
    assert "The loop" not in page.missing


@pytest.mark.parametrize(("table", "title"), [("topn", "Variety"), ("items", "Variety"), ("quarantine", None)])
def test_a_table_of_another_schema_affects_only_its_own_section_or_cell(spark, tmp_path, table, title):
    warehouse = Warehouse(spark, str(tmp_path / "other"), 60)
    for each in {*schemas.TABLES} - {table}:
        warehouse.create(each)
    column = schemas.columns(table)[-1]
    spark.createDataFrame([], schemas.ddl(table)).drop(column).write.format("delta").save(warehouse.path(table))
    page = report.build(warehouse, Runs(), NOW)
    _, text = parsed(page)
    assert f"has another schema: column {column} is missing" in text
    assert "The loop" not in page.missing
    assert title is None or title in page.missing


def test_tables_without_rows_are_no_error(spark, tmp_path):
    warehouse = Warehouse(spark, str(tmp_path / "bare"), 60)
    for table in schemas.TABLES:
        warehouse.create(table)
    assert "The loop" not in report.build(warehouse, Runs(), NOW).missing


def test_an_mlflow_that_does_not_answer_is_reported_in_a_sentence(tmp_path):
    for uri in (f"sqlite:///{tmp_path}/none.db", "http://127.0.0.1:9"):
        runs = read_runs(Config(mlflow={"tracking_uri": uri, "timeout_seconds": 2}))
        assert runs.curves == {}
        assert runs.problem.endswith(".")


def test_values_beyond_the_most_frequent_ones_are_one_count(spark, tmp_path):
    warehouse = Warehouse(spark, str(tmp_path / "many"), 60)
    rows = [(f"{k} {times}", f"reason {k:02}", "s", "f", NOW) for k in range(15) for times in range(20 - k)]
    warehouse.append(spark.createDataFrame(rows, schemas.ddl("quarantine")), "quarantine", {"job": "t"})
    found = data.counts_by(warehouse, "quarantine", "reason", most=12)
    assert found[:2] == [("reason 00", 20), ("reason 01", 19)]
    assert (len(found), found[-1]) == (13, ("all others", 8 + 7 + 6))
