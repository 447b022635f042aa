"""Training, evaluation and scoring encode an event's context the same way, though each reads it by its own path."""

from datetime import UTC, datetime, timedelta

import numpy as np

from headwater import schemas, sequences
from headwater.evaluation import cases
from headwater.scoring import executors
from headwater.scoring.users import Steps
from headwater.training import readers, snapshot

START = datetime(2025, 1, 1, tzinfo=UTC)
STEPS = "user_id string, event_time timestamp, event_id string, item_idx int, event_type string, value double"


def test_an_event_has_the_same_context_in_training_evaluation_and_scoring(spark, tmp_path):
    after = [0.0, 0.4, 61.9, 3_600.0, 90_000.25]
    kinds, values = ["view", "rating", "click", "purchase", "view"], [None, 4.0, None, 129.9, 0.0]
    rows = [
        ("u", START + timedelta(seconds=seconds), f"e{place}", place + 1, kind, value)
        for place, (seconds, kind, value) in enumerate(zip(after, kinds, values, strict=True))
    ]
    steps = spark.createDataFrame(rows, STEPS)
    stored = spark.createDataFrame([], schemas.ddl("sequences"))
    sequence = sequences.build(steps, stored, 9)
    scored = Steps.of(executors.histories(sequence).toPandas()).context()
    cut = START + timedelta(days=9)
    target = spark.createDataFrame([("u", cut, "e9", 9, "view", None)], STEPS)
    evaluated = cases.collect(cases.temporal(steps.unionByName(target), cut, None, 9, False), 9).context[0]
    trained = {
        name: readers.read_pyarrow(
            snapshot.export(snapshot.training_rows(pieces, 9, 9), tmp_path / name, {}, 1, 1).files[0]
        )["context"][0, -5:]
        for name, pieces in {"windows": snapshot.windows(steps, 9, 2), "sequences": sequence}.items()
    }
    assert len(set(scored.tolist())) == 5
    for codes in (evaluated, trained["windows"], trained["sequences"]):
        np.testing.assert_array_equal(codes, scored)
