"""Edge cases of snapshots: fewer rows than files, facts that differ, paths with blanks, damage."""

from datetime import UTC, datetime

import numpy as np
import pytest

from headwater.errors import TableError
from headwater.training import readers, snapshot


def rows(spark, users):
    """User k has item k + 1, then item k + 2."""
    times = [datetime(2025, 1, day, tzinfo=UTC) for day in (1, 2)]
    lists = [(f"u{user}", [user + 1, user + 2], ["view"] * 2, times, ["a", "b"], [None, 2.0]) for user in range(users)]
    ddl = (
        "user_id string, item_idx array<int>, event_type array<string>, event_time array<timestamp>, "
        "event_id array<string>, value array<double>"
    )
    return snapshot.training_rows(spark.createDataFrame(lists, ddl), 99, 3)


@pytest.mark.parametrize(("users", "files"), [(1, 1), (1, 4), (2, 5), (5, 2)])
def test_every_row_counts_once_in_equally_long_files_even_with_fewer_rows_than_files(spark, tmp_path, users, files):
    made = snapshot.export(rows(spark, users), tmp_path / "s", {}, files, 1)
    parts = [readers.read_pyarrow(path) for path in made.files]
    assert [len(part["item"]) for part in parts] == [-(-users // files)] * files
    counting = np.concatenate([part["item"][part["weight"][:, -1] > 0] for part in parts])
    assert sorted(counting[:, -1].tolist()) == [user + 2 for user in range(users)]


def test_the_same_facts_reuse_a_snapshot_and_others_are_refused(spark, tmp_path):
    facts = {"sequences_version": 4, "train_until": datetime(2025, 1, 9, tzinfo=UTC)}
    first = snapshot.export(rows(spark, 2), tmp_path / "s", facts, 1, 1)
    assert snapshot.export(rows(spark, 3), tmp_path / "s", facts, 1, 1) == first
    with pytest.raises(TableError, match="a different sequences_version"):
        snapshot.export(rows(spark, 3), tmp_path / "s", {**facts, "sequences_version": 5}, 1, 1)
    assert snapshot.Snapshot.open(tmp_path / "s") == first


def test_both_readers_open_a_path_with_a_blank(spark, tmp_path):
    made = snapshot.export(rows(spark, 3), tmp_path / "my shop 100%", {}, 1, 1)
    one, other = readers.read_pyarrow(made.files[0]), readers.read_petastorm(made.files[0])
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_folder_without_a_readable_manifest_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(TableError, match=r"no readable manifest\.json"):
            snapshot.Snapshot.open(folder)
