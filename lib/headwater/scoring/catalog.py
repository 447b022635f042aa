"""The catalogue as arrays for the scorer, and a model's item vectors as rows of ``item_embeddings``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from headwater import schemas


def available(items: DataFrame) -> np.ndarray:
    """Which items may be shown, bool ``[max item_idx + 1]``."""
    known = items.select("item_idx", F.coalesce("available", F.lit(True)).alias("available")).toPandas()
    shown = np.zeros(int(known["item_idx"].max() or 0) + 1 if len(known) else 1, dtype=bool)
    shown[known["item_idx"]] = known["available"]
    return shown


def embeddings(spark: SparkSession, model: Path, items: DataFrame, version: int) -> DataFrame:
    """The item vectors of a model version, for the items that it knows, in the order of the table's columns."""
    from headwater.models.ranker import Ranker

    vectors = Ranker.open(model).item_vectors.numpy()
    frame = pd.DataFrame({"item_idx": np.arange(1, len(vectors), dtype=np.int32), "embedding": list(vectors[1:])})
    rows = spark.createDataFrame(frame, "item_idx int, embedding array<float>")
    named = rows.join(items.select("item_idx", "item_id"), "item_idx", how="inner")
    return named.withColumn("model_version", F.lit(version)).select(schemas.columns("item_embeddings"))
