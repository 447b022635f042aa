"""The warm stream, from the landing folder and from a real Kafka broker: killed, drained, stopped, and refused."""

import json
import signal
import threading
import time
from datetime import timedelta

import pytest
import shop
from pyspark.sql import functions as F
from sites import JOB_TIMEOUT_SECONDS, Site, copy_of
from streams import TOPN, clicks, closing_of, of_tables, streaming, topic_of
from structlog.testing import capture_logs

from headwater.config import load
from headwater.errors import HeadwaterError, ModelError
from headwater.frames import MAX_COLLECTED_ROWS
from headwater.ingest import verdicts
from headwater.job import Job
from headwater.nearline import lists, sequences, stream
from headwater.nearline.cache import ScoringCache
from headwater.nearline.events import Intake
from headwater.scoring import indexed
from headwater.tables import log, readers
from headwater.tracking import Registry

ITEMS = [f"i{k}" for k in range(40)]


def deletion_vector_commits(site, table):
    """How often a commit marked rows of a table as gone instead of writing their files anew."""
    commits = log.local_commits(site.warehouse / table)
    return sum(int(commit.metrics.get("numTargetDeletionVectorsAdded", 0)) > 0 for commit in commits)


def run_until_killed(site, failpoint):
    ended = site.start("nearline", "--once", failpoint=failpoint)
    assert ended.returncode == -signal.SIGKILL, f"{failpoint} was not reached: {ended.stderr[-2000:]}"


def warm_cache(j):
    """What a stream has kept after some rounds: only then are sequences committed while lists are made."""
    cache = ScoringCache(j, popular_seconds=JOB_TIMEOUT_SECONDS)
    cache.recent_counts(cache.champion())
    return cache


def test_one_round_does_what_three_jobs_do_and_the_next_finds_nothing(trained, tmp_path, spark):
    apart, warm = copy_of(trained, tmp_path / "apart"), copy_of(trained, tmp_path / "warm")
    changed = shop.write_second_day(apart.landing)
    shop.write_second_day(warm.landing)
    for job, *args in (("ingest_events",), ("build_sequences",), ("score_topn", "--mode", "nearline")):
        apart.run(job, *args)
    closing = warm.run("nearline", "--once")
    assert (closing["rows_events"], closing["users_changed"], closing["users_scored"]) == (
        14,
        len(changed),
        len(changed),
    )
    assert of_tables(warm, spark) == of_tables(apart, spark)
    commits = {table: warm.commits(table) for table in of_tables(warm, spark)}
    closing = warm.run("nearline", "--once")
    assert (closing["rounds"], closing["batches"], closing["users_scored"]) == (1, 0, 0)
    assert commits == {table: warm.commits(table) for table in commits}


def test_the_path_for_few_rows_leaves_the_same_tables_as_the_path_for_many(trained, tmp_path, spark, monkeypatch):
    found = []
    for few in (MAX_COLLECTED_ROWS, 0):
        for module in (verdicts, readers, lists):
            monkeypatch.setattr(module, "MAX_COLLECTED_ROWS", few)
        site = copy_of(trained, tmp_path / str(few))
        changed = shop.write_second_day(site.landing)
        j = Job("nearline", load([site.config]))
        cache = warm_cache(j)
        counts, *_ = stream.take_round(j, Intake(j.sibling("ingest_events")), cache)
        cache.close()
        assert counts["users_scored"] == len(changed)
        rest = ("user_id", "rank", "item_id", "strategy", "model_version", "history_time", "propensity")
        found.append((of_tables(site, spark), *(site.rows(spark, table, *rest) for table in ("topn", "topn_history"))))
    assert found[0] == found[1]


def test_many_users_who_lose_an_item_of_their_sections_keep_their_lists(trained, tmp_path, spark, monkeypatch):
    """Sections are replaced first. That must not decide anew whose lists hold the item."""
    monkeypatch.setattr(lists, "MAX_COLLECTED_ROWS", 0)
    site = copy_of(trained, tmp_path / "site")
    beside, top = (
        {
            item: {user for user, listed in site.rows(spark, table, "user_id", "item_id") if listed == item}
            for item in ITEMS
        }
        for table in ("sections", "topn")
    )
    item = next(item for item in ITEMS if beside[item] - top[item])
    j = Job("score_topn", load([site.config], [f"topn.deny=[{item}]"]))
    assert lists.score(j, "nearline")["users_scored"] == len(beside[item] | top[item])
    now = site.rows(spark, "topn", "user_id", "item_id")
    assert len(now) == 60 * 5
    assert item not in {listed for _, listed in now}


def test_a_new_price_is_looked_at_once_and_changes_no_list(trained, tmp_path, spark):
    site = copy_of(trained, tmp_path / "site")
    j = Job("score_topn", load([site.config]))
    row = j.warehouse.read("items").where("item_id = 'i1'").withColumn("price", F.lit(9.0)).localCheckpoint()
    j.warehouse.merge(row, "items", {"job": "ingest_events"})
    before = j.warehouse.version("topn")
    assert lists.score(j, "nearline")["users_scored"] == 0
    assert j.warehouse.last_note("topn", "score_topn")["items_version"] == j.warehouse.version("items")
    assert lists.score(j, "nearline")["users_scored"] == 0
    assert j.warehouse.version("topn") == before + 1


def test_lists_are_published_only_after_their_sequences_are_committed(trained, tmp_path, spark, monkeypatch):
    site = copy_of(trained, tmp_path / "site")
    changed = shop.write_second_day(site.landing)
    j = Job("nearline", load([site.config]))
    intake, cache, commit = Intake(j.sibling("ingest_events")), warm_cache(j), sequences.commit

    def fail(*_):
        time.sleep(5)  # the lists are long made
        raise HeadwaterError("the sequences are not committed")

    before = site.rows(spark, "topn", *TOPN)
    monkeypatch.setattr(sequences, "commit", fail)
    with pytest.raises(HeadwaterError, match="not committed"):
        stream.take_round(j, intake, cache)
    assert site.rows(spark, "topn", *TOPN) == before
    monkeypatch.setattr(sequences, "commit", commit)
    counts, *_ = stream.take_round(j, intake, cache)
    cache.close()
    assert (counts["rows_events"], counts["users_changed"], counts["users_scored"]) == (0, len(changed), len(changed))
    assert {user for user, *_ in set(site.rows(spark, "topn", *TOPN)) - set(before)} <= changed


def test_a_round_also_makes_the_lists_of_users_whose_sequences_another_job_built(trained, tmp_path, spark):
    site = copy_of(trained, tmp_path / "site")
    changed = shop.write_second_day(site.landing)
    site.run("ingest_events")
    site.run("build_sequences")
    (site.landing / "api/day3.json").write_text("\n".join(clicks("u50", 2)) + "\n")
    counts = site.run("nearline", "--once")
    assert (counts["rows_events"], counts["users_changed"], counts["users_scored"]) == (2, 1, len(changed) + 1)
    assert site.run("nearline", "--once")["users_scored"] == 0


def test_without_a_champion_a_round_makes_sequences_but_no_lists(tmp_path, spark):
    site = Site(tmp_path / "site", shop.CONFIG)
    shop.write_first_day(site.landing)
    j = Job("nearline", load([site.config]))
    cache = ScoringCache(j)
    with pytest.raises(ModelError):
        stream.take_round(j, Intake(j.sibling("ingest_events")), cache)
    cache.close()
    assert len(site.rows(spark, "sequences", "user_id")) == 60


class Pauses(threading.Event):
    """Tells a stream to end after some pauses; what happens in each pause is given."""

    def __init__(self, *happens):
        super().__init__()
        self.happens, self.seconds = list(happens), []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        self.happens.pop(0)()
        if not self.happens:
            self.set()


def till_export(*rows, columns="customer,sku,at,quantity"):
    return "\n".join([columns, *rows]) + "\n"


def test_a_stream_warns_once_of_a_refused_file_and_ingests_it_after_it_is_replaced(trained, tmp_path, spark):
    site = copy_of(trained, tmp_path / "site", nearline={"interval_seconds": 7})
    sale = f"newcomer,i1,{shop.START + timedelta(days=15):%Y-%m-%d %H:%M:%S},1"
    (site.landing / "pos/day2.csv").write_text(till_export(sale, columns="buyer,sku,at,quantity"))
    (site.landing / "catalog/day2.csv").write_text('{"name": "Thing 99"}\n')
    (site.landing / "api/day2.json").write_text("\n".join(clicks("u1", 2)))
    tables = [
        table for table in stream.PACKED_TABLES if table != "topn_history"
    ]  # a round may end before its history is written
    commits = []

    def count():
        commits.append(list(map(site.commits, tables)))

    def replace():
        count()
        (site.landing / "pos/day2.csv").write_text(till_export(sale))

    j, pauses = Job("nearline", load([site.config])), Pauses(count, replace, count)
    with capture_logs() as said:
        total = stream.rounds(j, once=False, stop=pauses)
    assert [(line["file"], line["why"]) for line in said if line["event"] == "a file is left alone"] == [
        (
            "pos/day2.csv",
            "pos/day2.csv has no column 'customer', which ingest.sources names for user_id; the columns are 'buyer', 'sku', "
            "'at', 'quantity'",
        ),
        (
            "catalog/day2.csv",
            "catalogue catalog/day2.csv has no row with an item_id; it cannot be ingested without item ids",
        ),
    ]
    assert [line["files"] for line in said if line["event"] == "batch begins"] == [3, 2, 1, 1]
    assert commits[0] == commits[1]
    assert pauses.seconds == [7, 7, 7]
    assert [total[name] for name in ("rows_in", "rows_events", "files", "batches", "rounds")] == [3, 3, 2, 2, 5]
    assert ("newcomer",) in site.rows(spark, "topn", "user_id")


def test_a_stream_that_runs_once_makes_the_lists_and_then_fails_for_a_refused_file(trained, tmp_path, spark):
    site = copy_of(trained, tmp_path / "site")
    (site.landing / "catalog/new.csv").write_text("name,price\nThing 99,1\n")
    (site.landing / "api/day2.json").write_text("\n".join(clicks("newcomer", 2)))
    ended = site.run_here("nearline", "--once")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-1] == (
        "nearline: catalogue catalog/new.csv has no column 'sku'; it cannot be ingested without item ids; the columns are "
        "'name', 'price' (left alone; all other files were ingested)"
    )
    assert ("newcomer",) in site.rows(spark, "topn", "user_id")


def test_every_table_is_packed_in_turn_and_never_two_in_one_round():
    for at_once in (1, 2, 4):
        rounds = range(0, 48, at_once)
        turns = [stream.table_to_pack(before, before + at_once) for before in rounds]
        assert sorted(filter(None, turns)) == sorted(stream.PACKED_TABLES)
    assert stream.table_to_pack(6, 6) is None


def test_a_new_champion_makes_the_lists_from_the_next_round_on(trained, tmp_path, spark):
    site = copy_of(trained, tmp_path / "site")
    site.run("train_model")
    j = Job("nearline", load([site.config]))
    intake, cache = Intake(j.sibling("ingest_events")), ScoringCache(j, popular_seconds=300)

    def act(user):
        (site.landing / f"api/{user}.json").write_text("\n".join(clicks(user, 2)))
        stream.take_round(j, intake, cache)
        return {version for name, version in site.rows(spark, "topn", "user_id", "model_version") if name == user}

    before = act("u1")
    Registry(j.config).set_alias("champion", 2)
    after = act("u2")
    cache.close()
    assert (before, after) == ({1}, {2})


def test_messages_are_ingested_once_into_events_or_quarantine_with_their_offset(trained, tmp_path, spark, kafka):
    name = kafka.make("clicks")
    site = copy_of(trained, tmp_path / "site", topic_of(kafka, name, max_messages=12))
    good = clicks("u1", 20)
    drift = json.dumps({"user": "u1", "item": "i1", "schema": 2})
    bad = ["{broken", None, b"\xff\xfe", "", drift, "x" * 1_000_001, good[0], clicks("u2", 1)[0]]
    kafka.send(name, good, 0)
    kafka.send(name, bad, 1)
    closing = site.run("nearline", "--once", fresh=True)
    assert [closing[key] for key in ("rows_in", "rows_events", "rows_quarantined", "rows_duplicate")] == [28, 21, 6, 1]
    assert closing["rounds"] > 1
    rejects = {
        file: reason for file, reason in site.rows(spark, "quarantine", "source_file", "reason") if "kafka" in file
    }
    assert rejects == {
        "kafka://clicks/1/0": "malformed_json",
        "kafka://clicks/1/1": "tombstone",
        "kafka://clicks/1/2": "not_utf8",
        "kafka://clicks/1/3": "empty_line",
        "kafka://clicks/1/4": "missing_user_id",
        "kafka://clicks/1/5": "line_too_long",
    }
    files = [file for (file,) in site.rows(spark, "events", "source_file") if file.startswith("kafka")]
    assert sorted(files) == sorted([*(f"kafka://clicks/0/{n}" for n in range(20)), "kafka://clicks/1/7"])
    assert site.run("ingest_events", fresh=True)["rows_in"] == 0


def test_a_stream_killed_at_every_stage_loses_and_doubles_no_message(trained, tmp_path, spark, kafka):
    """The one that is killed marks rows where the other writes files anew, in tables that were there before."""
    name = kafka.make("orders")
    topic, marks = topic_of(kafka, name, max_messages=200), {"deletion_vectors": True}
    killed_site = copy_of(trained, tmp_path / "killed", topic, tables=marks)
    clean = copy_of(trained, tmp_path / "clean", topic)
    # the other instants are those of the jobs, whose bodies these are: tests/jobs/test_kills.py
    instants = ("ingest_events:after_plan", "build_sequences:after_merge", "score_topn:after_topn")
    for number, instant in enumerate(instants):
        for user in range(5):
            kafka.send(name, [*clicks(f"u{user}", 20, first=number * 20), "{broken"], user % 2)
        run_until_killed(killed_site, instant)
    for site in (killed_site, clean):
        site.run("nearline", "--once", fresh=True)
    found = of_tables(killed_site, spark)
    assert len(found["events"]) == len({row[0] for row in found["events"]}) == 720 + len(instants) * 5 * 20
    assert found == of_tables(clean, spark)
    assert all(
        deletion_vector_commits(killed_site, table) and not deletion_vector_commits(clean, table)
        for table in ("sequences", "topn")
    )
    history = killed_site.rows(spark, "topn_history", "user_id", "rank", "generated_at")
    assert len(history) == len(set(history))


def test_sigterm_ends_the_stream_after_the_current_round(trained, tmp_path, spark, kafka):
    name = kafka.make("live")
    live = topic_of(kafka, name, starting="latest")
    site = copy_of(trained, tmp_path / "site", live, tables={"deletion_vectors": True})
    kafka.send(name, clicks("u5", 3))
    with streaming(site) as process:
        until = time.monotonic() + JOB_TIMEOUT_SECONDS
        begun = "kafka://live"
        while not any(path.startswith(begun) for (path,) in site.rows(spark, "ingest_files", "path")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(1)
        kafka.send(name, [*clicks("u1", 3), *clicks("newcomer", 3)])
        while not [user for (user,) in site.rows(spark, "topn", "user_id") if user == "newcomer"]:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(1)
        process.send_signal(signal.SIGTERM)
        closing = closing_of(process)
    assert (closing["status"], closing["rows_events"], closing["users_scored"]) == ("ok", 6, 2)
    assert deletion_vector_commits(site, "topn")


def test_sigterm_early_in_a_batch_lets_its_lists_finish_and_the_next_start_continues(trained, tmp_path, spark):
    site = copy_of(trained, tmp_path / "site")
    (site.landing / "api/day2.json").write_text("\n".join(clicks("newcomer", 3)) + "\n")
    with streaming(site) as process:
        assert process.stderr is not None
        begun = next(
            (line for line in process.stderr if "batch begins" in line), "the stream ended before its first batch"
        )
        assert "batch begins" in begun
        process.send_signal(signal.SIGTERM)
        (site.landing / "api/day3.json").write_text("\n".join(clicks("latecomer", 2)) + "\n")
        closing = closing_of(process)
    assert [closing[name] for name in ("status", "rounds", "rows_events", "users_scored")] == ["ok", 1, 3, 1]
    listed = {user for (user,) in site.rows(spark, "topn", "user_id")}
    assert ("newcomer" in listed, "latecomer" in listed) == (True, False)
    assert {user for (user,) in site.rows(spark, "topn_history", "user_id")} == listed
    closing = site.run("nearline", "--once")
    assert [closing[name] for name in ("rows_events", "users_changed", "users_scored")] == [2, 1, 1]


def test_rounds_that_use_an_index_report_it_with_its_recall(trained, tmp_path, spark, monkeypatch):
    monkeypatch.setattr(indexed, "PAYS_ABOVE", 0.0)  # one user alone would be searched without one
    site = copy_of(trained, tmp_path / "site", topn={**shop.CONFIG["topn"], "index": "faiss"})
    (site.landing / "api/day2.json").write_text("\n".join(clicks("u1", 2)) + "\n")
    with capture_logs() as said:
        closing = stream.run(Job("nearline", load([site.config])), once=True)
    assert (closing["users_scored"], closing["index"], closing["recall"]) == (1, "faiss", 1.0)
    assert [(line["index"], line["recall"]) for line in said if line["event"] == "round done"] == [("faiss", 1.0)]


@pytest.mark.parametrize(
    ("topic", "brokers", "code", "line"),
    [
        ("no-such-topic", None, 2, "topic no-such-topic does not exist"),
        ("clicks", "127.0.0.1:1", 1, "brokers 127.0.0.1:1 do not answer"),
        ("clicks", "no.such.host:9092", 2, "brokers no.such.host:9092 cannot be used"),
    ],
)
def test_a_missing_broker_or_topic_is_a_one_line_error_and_the_lists_stay(
    trained, tmp_path, spark, kafka, topic, brokers, code, line
):
    site = copy_of(trained, tmp_path / "site", topic_of(kafka, topic) | ({"brokers": brokers} if brokers else {}))
    before = of_tables(site, spark)
    ended = site.start("nearline", "--once")
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == code, ended.stderr
    assert last.startswith("nearline: ")
    assert line in last
    assert "Traceback" not in ended.stderr
    assert of_tables(site, spark) == before
    assert topic not in kafka.topics() or topic == "clicks"
