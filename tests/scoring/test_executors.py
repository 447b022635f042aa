"""What a Spark worker does before and after it makes lists."""

import sys
import zipimport
from datetime import UTC, datetime
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pyarrow as pa

from headwater.scoring import executors
from headwater.scoring.executors import _forget_archives
from headwater.scoring.places import PLACES

DAYS = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
WITHOUT_A_LIST = "nobody"


def test_places_are_packed_into_lists_and_unpacked_unchanged(spark):
    """The Top-N of two users, then a section of one of them; a third user has no list."""
    made = pd.DataFrame(
        {
            "user_id": ["b", "b", "a", "a", "a", "b"],
            "section": np.array([0, 0, 0, 0, 0, 2], dtype=np.int32),
            "rank": [1, 2, 1, 2, 3, 1],
            "item_idx": [9, 8, 3, 2, 1, 7],
            "score": [2.0, 1.0, 3.0, 2.0, 1.0, 0.5],
            "propensity": [np.nan, 0.25, np.nan, np.nan, np.nan, np.nan],
            "strategy": ["gru", "explore", "gru", "gru", "gru", "new"],
            "because_idx": [4, 0, 5, 5, 5, 0],
            "because_type": [1, 0, 3, 3, 3, 0],
            "otherwise": ["", "seen by few so far", "", "", "", "new in the catalogue"],
        }
    )
    known = pa.array(DAYS, pa.timestamp("us", "UTC"))
    rows = executors.as_lists(made, pa.array(["b", WITHOUT_A_LIST, "a"]), known)
    assert rows.select(["user_id", "section", "item_idx"]).to_pylist() == [
        {"user_id": "b", "section": 0, "item_idx": [9, 8]},
        {"user_id": "a", "section": 0, "item_idx": [3, 2, 1]},
        {"user_id": "b", "section": 2, "item_idx": [7]},
    ]
    assert rows["history_time"].to_pylist() == [DAYS[0], DAYS[2], DAYS[0]]
    assert rows["propensity"].to_pylist()[0] == [None, 0.25]
    frame = spark.createDataFrame(pa.Table.from_batches([rows]), executors.LISTS)
    found = executors.places(frame).drop("history_time").toPandas()
    pd.testing.assert_frame_equal(found, made, check_dtype=False)


def test_a_batch_without_any_list_has_no_rows():
    nothing = pd.DataFrame({name: [] for name in ("user_id", "section", *PLACES)})
    rows = executors.as_lists(nothing, pa.array(["a"]), pa.array(DAYS[:1], pa.timestamp("us", "UTC")))
    assert (rows.num_rows, rows.schema.names[3:]) == (0, list(PLACES))


def test_zip_archives_on_the_path_are_dropped_from_the_import_cache_and_found_again(tmp_path, monkeypatch):
    with ZipFile(tmp_path / "goods.zip", "w") as archive:
        archive.writestr("goods_for_a_test.py", "PRICE = 3")
        archive.writestr("more_goods_for_a_test.py", "PRICE = 4")
    monkeypatch.syspath_prepend(str(tmp_path / "goods.zip"))
    import goods_for_a_test

    def zip_importers():
        return [finder for finder in sys.path_importer_cache.values() if isinstance(finder, zipimport.zipimporter)]

    assert zip_importers()
    _forget_archives()
    assert not zip_importers()
    import more_goods_for_a_test

    assert (goods_for_a_test.PRICE, more_goods_for_a_test.PRICE) == (3, 4)
