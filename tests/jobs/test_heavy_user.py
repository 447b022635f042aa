"""A user with a million events, such as a shared account or an undetected bot, costs no more than the rows themselves."""

from datetime import timedelta

import shop
from pyspark.sql import functions as F
from sites import copy_of

from headwater import schemas
from headwater.tables import Warehouse

MANY = 1_000_000


def test_a_user_with_a_million_events_gets_a_sequence_of_the_last_ones_and_a_list(trained, tmp_path, spark):
    """The driver may fetch only 4 MB, so it cannot collect the events."""
    small = {"spark.driver.maxResultSize": "4m", "spark.sql.shuffle.partitions": "2"}
    site = copy_of(trained, tmp_path / "site", spark=small)
    begun = shop.START + timedelta(days=1)
    known = {
        "event_id": F.format_string("e%07d", "id"),
        "user_id": F.lit("heavy"),
        "item_id": F.concat(F.lit("i"), F.col("id") % 40),
        "event_type": F.lit("view"),
        "event_time": F.timestamp_millis(F.lit(int(begun.timestamp() * 1000)) + F.col("id") * 1000),
        "source": F.lit("s"),
        "source_file": F.lit("f"),
        "ingested_at": F.lit(begun),
        "event_date": F.lit(begun.date()),
    }
    columns = [known.get(name, F.lit(None)).cast(kind).alias(name) for name, kind in schemas.TABLES["events"].items()]
    Warehouse(spark, str(site.warehouse)).append(spark.range(MANY).select(columns), "events", {"job": "test"})
    assert site.run("build_sequences", fresh=True)["users_changed"] == 1
    closing = site.run("score_topn", "--mode", "nearline", "--set", "topn.exclude_seen=false", fresh=True)
    assert closing["users_scored"] == 1
    ids, seen = next(
        (ids, seen) for user, ids, seen in site.rows(spark, "sequences", "user_id", "event_id", "seen_items")
        if user == "heavy"
    )  # fmt: skip
    assert ids == [f"e{number:07d}" for number in range(MANY - 12, MANY)]
    assert len(seen) == 40
    assert len([user for (user,) in site.rows(spark, "topn", "user_id") if user == "heavy"]) == 5
