"""The snapshot: fixed-length rows, equal files, digests; two readers that return the same batches."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as parquet
import pytest

from headwater import schemas
from headwater.errors import HeadwaterError
from headwater.training import readers, snapshot

START = datetime(2025, 1, 1, tzinfo=UTC)


def sequences(spark, lists):
    rows = []
    for user, items in lists.items():
        times = [START + timedelta(days=k) for k in range(len(items))]
        ids = [f"{user}{k}" for k in range(len(items))]
        rows.append((user, items, ["view"] * len(items), times, ids, [None] * len(items), items, times[-1], START))
    frame = spark.createDataFrame(rows, schemas.ddl("sequences"))
    return frame


def arrays(frame):
    return {row["user_id"]: (row["item"], row["type"], row["weight"]) for row in frame.collect()}


def test_rows_are_left_padded_and_capped_and_too_short_ones_are_left_out(spark):
    frame = sequences(spark, {"a": [1, 2], "b": [1, 2, 3, 4, 5], "c": [1]})
    found = arrays(snapshot.training_rows(frame, n_items=9, max_length=3))
    assert found == {
        "a": ([0, 0, 1, 2], [0, 0, 1, 1], [0.0, 0.0, 1.0, 1.0]),
        "b": ([2, 3, 4, 5], [1, 1, 1, 1], [1.0, 1.0, 1.0, 1.0]),
    }


def test_held_out_and_unknown_events_are_left_out(spark):
    frame = sequences(spark, {"a": [1, 2, 3, 9], "b": [1, 2, 3, 4]})
    before = snapshot.training_rows(frame, 8, 3, before=START + timedelta(days=3))
    assert {user: row[0] for user, row in arrays(before).items()} == {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}


def steps(spark, lists):
    """Each user's items, one per day."""
    rows = [
        (u, i, "view", START + timedelta(days=k), f"{u}{k}", None)
        for u, items in lists.items()
        for k, i in enumerate(items)
    ]
    return spark.createDataFrame(
        rows, "user_id string, item_idx int, event_type string, event_time timestamp, event_id string, value double"
    )


def test_a_long_history_is_split_so_that_each_event_but_the_first_is_a_target_once(spark):
    frame = steps(spark, {"a": [1, 2, 3, 4, 5, 6, 7, 8], "b": [1, 2, 3, 4], "c": [1, 2, 3, 4, 5], "d": [9]})
    rows = snapshot.training_rows(snapshot.windows(frame, 3, 5), 9, 3).collect()
    assert {(row["user_id"], row["piece"]): row["item"] for row in rows} == {
        ("a", 0): [5, 6, 7, 8],
        ("a", 1): [2, 3, 4, 5],
        ("a", 2): [0, 0, 1, 2],
        ("b", 0): [1, 2, 3, 4],
        ("c", 0): [2, 3, 4, 5],
        ("c", 1): [0, 0, 1, 2],
    }


def test_only_the_newest_windows_of_a_longer_history_are_kept(spark):
    frame = steps(spark, {"a": [1, 2, 3, 4, 5, 6, 7, 8]})
    rows = snapshot.training_rows(snapshot.windows(frame, 3, 2), 9, 3).collect()
    assert sorted(row["item"] for row in rows) == [[2, 3, 4, 5], [5, 6, 7, 8]]


def test_a_reward_adds_to_the_weight_of_its_event(spark):
    from pyspark.sql import functions as F

    rewards = F.create_map(F.lit("a1"), F.lit(2.0))
    frame = sequences(spark, {"a": [1, 2]}).withColumn("rewards", rewards)
    assert arrays(snapshot.training_rows(frame, 9, 1))["a"][2] == [1.0, 3.0]


@pytest.fixture
def written(spark, tmp_path):
    lists = {f"u{k}": list(range(1, 3 + k % 4)) for k in range(7)}
    rows = snapshot.training_rows(sequences(spark, lists), 9, 4)
    return snapshot.export(rows, tmp_path / "snapshot", {"n_items": 9}, processes=2, seed=1)


def test_files_have_equal_numbers_of_rows_and_filler_rows_have_weight_zero(written):
    assert [entry["rows"] for entry in written.manifest["files"]] == [4, 4]
    weights = np.concatenate([readers.read_pyarrow(path)["weight"] for path in written.files])
    assert weights.shape == (8, 5)
    assert (weights.sum(axis=1) > 0).sum() == 7


def test_read_items_returns_each_row_once_for_any_number_of_ranks(spark, tmp_path, monkeypatch):
    asked, read_table = [], parquet.read_table
    monkeypatch.setattr(
        parquet, "read_table", lambda path, columns: asked.append(columns) or read_table(path, columns=columns)
    )
    rows = snapshot.training_rows(sequences(spark, {f"u{k}": [k + 1, k + 2] for k in range(7)}), 9, 4)
    for processes in (1, 3):
        made = snapshot.export(rows, tmp_path / str(processes), {}, processes, seed=1)
        found = readers.read_items(made.files, 9)
        assert sorted(found.tolist()) == [[0, 0, 0, k + 1, k + 2] for k in range(7)]
        assert found.dtype == np.int32
    assert asked == [["item", "weight"]] * 4


def test_both_readers_give_the_same_batches_rank_by_rank(written):
    for rank in (0, 1):
        ours, theirs = (
            list(readers.epoch(written.files, read, 3, seed=5, number=2, rank=rank, world=2))
            for read in (readers.read_petastorm, readers.read_pyarrow)
        )
        assert len(ours) == len(theirs) == 2
        for one, other in zip(ours, theirs, strict=True):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])
                assert one[name].dtype == other[name].dtype


def test_epochs_differ_in_order_and_ranks_share_all_rows(written):
    def rows(number, world):
        return [
            tuple(row)
            for rank in range(world)
            for batch in readers.epoch(written.files, readers.read_pyarrow, 2, 5, number, rank, world)
            for row in np.pad(batch["item"], ((0, 0), (5 - batch["item"].shape[1], 0))).tolist()
        ]

    assert sorted(rows(1, 1)) == sorted(rows(1, 2)) == sorted(rows(2, 2))
    assert rows(1, 1) != rows(2, 1)


def test_a_damaged_file_is_named(written):
    path = written.directory / written.manifest["files"][0]["path"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(HeadwaterError, match=r"rows-00000\.parquet is missing or damaged"):
        snapshot.Snapshot.open(written.directory)


@pytest.mark.parametrize("name", sorted(readers.READERS))
def test_a_file_with_an_item_beyond_the_table_is_named(written, name):
    """Item 5 is the largest; for a masked model of four items, index 5 would be the mask token."""
    damaged = [path for path in written.files if readers.read_pyarrow(path)["item"].max() == 5]
    line = rf"{damaged[0]} holds item index 5, but the model knows only 1 to 4; delete {written.directory}$"
    read = readers.checked_reader(name, [0.0, *[1.0] * 7], 4)
    with pytest.raises(HeadwaterError, match=line):
        list(map(read, written.files))
    with pytest.raises(HeadwaterError, match=line):
        readers.read_items(written.files, 4)
    assert readers.read_items(written.files, 5).max() == 5
    assert readers.checked_reader(name, [0.0, *[1.0] * 7], 5)(damaged[0])["item"].max() == 5


def test_a_negative_item_index_is_refused():
    with pytest.raises(
        HeadwaterError, match=r"^training snapshot file s/rows\.parquet holds item index -1, .* delete s$"
    ):
        readers.need_known(np.array([[0, 3, -1]]), "s/rows.parquet", 4)


def test_rows_of_a_batch_have_similar_lengths_so_that_little_is_padding():
    """Most histories are short and a few are long, as in any shop: in random batches most cells are padding."""
    lengths = np.random.default_rng(1).geometric(0.1, size=2_000).clip(2, 50)
    items = (np.arange(50) >= 50 - lengths[:, None]).astype(np.int64)

    def padding(batches):
        return 1 - items.sum() / sum(batch.size for batch in batches)

    by_chance = [items[start : start + 32, -lengths[start : start + 32].max() :] for start in range(0, 2_000, 32)]
    rows = {"item": items, "context": items, "weight": items.astype(np.float32)}
    ours = [batch["item"] for batch in readers.epoch(["one"], lambda _: rows, 32, seed=1, number=1)]
    assert sum(map(len, ours)) == 2_000
    assert padding(by_chance) > 0.7
    assert padding(ours) < 0.1


def test_a_snapshot_without_training_rows_is_refused(spark, tmp_path):
    rows = snapshot.training_rows(sequences(spark, {"a": [1]}), 9, 4)
    with pytest.raises(HeadwaterError, match="no sequence has two events"):
        snapshot.export(rows, tmp_path / "snapshot", {}, 1, 1)
