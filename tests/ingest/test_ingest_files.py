import errno
import os
from datetime import UTC, datetime

import pytest

from headwater.config import Source
from headwater.errors import HeadwaterError, UsageError
from headwater.ingest import batch, files

JSON = Source(format="json", glob="api/**/*.json*")
MOMENT = datetime(2024, 5, 1, tzinfo=UTC)


def landing(root, *paths):
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}\n")
    return str(root)


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("api/*.json*", "api/day.json.gz", True),
        ("api/*.json*", "api/deep/day.json", False),
        ("api/**/*.json", "api/day.json", True),
        ("api/**/*.json", "api/a/b/day.json", True),
        ("web/access[0-9].log", "web/access7.log", True),
        ("web/access[!0-9].log", "web/access7.log", False),
        ("a.b/*", "axb/c", False),
    ],
)
def test_a_glob_matches_within_one_folder_unless_it_has_a_double_star(glob, path, matches):
    assert bool(files.glob_pattern(glob).fullmatch(path)) is matches


def test_hidden_names_and_folders_are_left_alone(tmp_path, spark):
    root = landing(
        tmp_path, "api/a.json", "api/.b.json", "api/_c.json", "api/_tmp/d.json", "api/x/e.json", "api/lost+found/f.json"
    )
    found, shared = files.find(spark, root, [JSON])
    assert ([f.path for f in found], shared) == (["api/a.json", "api/x/e.json"], [])


@pytest.mark.parametrize(("number", "exit_code"), [(errno.EACCES, 2), (errno.EIO, 1)])
def test_a_folder_that_cannot_be_listed_is_a_usage_error_unless_a_later_run_may_list_it(
    tmp_path, spark, monkeypatch, number, exit_code
):
    root, listing = landing(tmp_path, "api/a.json", "api/secret/b.json"), os.scandir

    def refused(folder):
        if str(folder).endswith("secret"):  # root may list any folder
            raise OSError(number, os.strerror(number), str(folder))
        return listing(folder)

    monkeypatch.setattr(os, "scandir", refused)
    line = rf"landing folder .* cannot be listed: .*{os.strerror(number)}: .*secret"
    with pytest.raises(HeadwaterError, match=line) as caught:
        files.find(spark, root, [JSON])
    assert caught.value.exit_code == exit_code


def test_a_file_matched_by_two_sources_goes_to_the_first(tmp_path, spark):
    root = landing(tmp_path, "api/a.json")
    found, shared = files.find(spark, root, [JSON, Source(format="csv", glob="api/*")])
    assert ([f.source.format for f in found], shared) == (["json"], ["api/a.json"])


def test_hadoop_lists_the_same_files(tmp_path, spark):
    root = landing(tmp_path, "api/a b+c%20.json", "api/_c.json", "api/x/ü.json")
    local, _ = files.find(spark, root, [JSON])
    listed = files._walk_hadoop(spark, f"file://{root}")
    remote = sorted((path, size) for path, _, size, _ in listed if not path.startswith("api/_"))
    assert remote == [(f.path, f.size_bytes) for f in local]


def test_a_landing_folder_may_be_named_by_a_uri(tmp_path, spark):
    (tmp_path / "my landing").mkdir()
    assert files.resolve(spark, f"file://{tmp_path}/my%20landing") == str(tmp_path / "my landing")
    with pytest.raises(UsageError, match="landing folder nosuch://x/y cannot be listed: "):
        files.resolve(spark, "nosuch://x/y")


def test_a_missing_landing_folder_is_a_usage_error(tmp_path, spark):
    with pytest.raises(UsageError, match="does not exist"):
        files.resolve(spark, str(tmp_path / "nowhere"))


def row(path, number, size=3):
    return {"path": path, "batch": number, "size_bytes": size, "modified_at": MOMENT, "taken_at": MOMENT}


def found(*paths):
    return [files.LandingFile(path, "/" + path, 3, MOMENT, JSON) for path in paths]


def test_new_files_make_the_next_batch():
    [one] = batch.plan(found("a", "b"), [row("a", 4)], 4, 4, MOMENT, pytest.fail)
    assert (one.number, [f.path for f in one.files], one.planned) == (5, ["b"], False)


def test_a_ledger_that_lost_rows_reuses_no_batch_number():
    [one] = batch.plan(found("a"), [], 500, 0, MOMENT, pytest.fail)
    assert one.number == 501


def test_an_unfinished_batch_comes_first_and_only_with_its_own_files():
    again, new = batch.plan(found("a", "b", "c"), [row("a", 1), row("b", 2)], 1, 2, MOMENT, pytest.fail)
    assert (again.number, [f.path for f in again.files], again.planned) == (2, ["b"], True)
    assert (new.number, [f.path for f in new.files]) == (3, ["c"])


def test_missing_and_changed_files_are_named():
    said = []
    batch.plan(found("a"), [row("a", 1, size=2), row("b", 1)], 0, 1, MOMENT, lambda line, paths: said.append(paths))
    assert said == [["a"], ["b"]]


def test_times_from_rows_are_utc_in_any_time_zone_of_the_process(monkeypatch):
    import time

    monkeypatch.setitem(os.environ, "TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert batch.aware(datetime(2024, 5, 1, 9)) == MOMENT
    finally:
        monkeypatch.undo()
        time.tzset()
