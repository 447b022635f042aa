"""Which feedback a fine-tune learns from."""

from datetime import UTC, datetime, timedelta

from headwater.feedback import unknown_to_model
from headwater.sequences import ingested_until

TRAINED = datetime(2025, 1, 10, 16, tzinfo=UTC)
INGESTED = TRAINED + timedelta(hours=2)


def test_what_came_late_is_unknown_to_a_model_as_what_was_given_later_is(spark):
    hour = timedelta(hours=1)
    rows = [
        ("known", TRAINED - hour, INGESTED),
        ("late", TRAINED - hour, INGESTED + hour),
        ("after", TRAINED, INGESTED),
        ("held out", TRAINED + hour, INGESTED),
    ]
    events = spark.createDataFrame(rows, "event_id string, event_time timestamp, ingested_at timestamp")
    feedback = events.select("event_id", "event_time")

    def unknown(*until):
        return {row["event_id"] for row in unknown_to_model(feedback, events, *until).collect()}

    assert unknown(TRAINED, INGESTED) == {"late", "after", "held out"}
    assert unknown(TRAINED, None) == {"after", "held out"}
    assert unknown(None, None) == {"known", "late", "after", "held out"}
    assert ingested_until(events) == INGESTED + hour
    assert ingested_until(events.limit(0)).year == 1970
