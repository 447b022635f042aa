"""Between ``items`` and the scorer: the catalogue as arrays, a model's vectors as rows, titles for lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from headwater import schemas
from headwater.scoring.catalogue import Catalogue


def catalogue(items: DataFrame, popular: np.ndarray, deny: tuple[str, ...] = ()) -> Catalogue:
    """The present state of ``items``, beside how popular they were when that was counted, ``[max item_idx + 1]`` then.

    Items whose ids are in ``deny`` may not be shown.
    """
    known = items.select(
        "item_idx",
        (F.coalesce("available", F.lit(True)) & ~F.col("item_id").isin(*deny)).alias("available"),
        F.coalesce("category", F.lit("")).alias("category"),
        (F.unix_micros("first_seen") / F.lit(1e6)).alias("first_seen"),
    ).toPandas()
    names, codes = np.unique(["", *known["category"]], return_inverse=True)
    columns = {"available": known["available"], "category": codes[1:], "first_seen": known["first_seen"]}
    kinds = {"available": bool, "category": np.int32, "first_seen": np.float64}
    size = 1 + max(len(popular) - 1, int(known["item_idx"].max()) if len(known) else 0)
    arrays = {name: np.zeros(size, dtype=kind) for name, kind in kinds.items()}
    for name, array in arrays.items():
        array[known["item_idx"]] = columns[name]
    return Catalogue(popular=np.pad(popular, (0, size - len(popular))), names=names, **arrays)


def embeddings(spark: SparkSession, model: Path, items: DataFrame, version: int) -> DataFrame:
    """The item vectors of a model version, for the items that it knows, in the order of the table's columns."""
    from headwater.models.ranker import Ranker

    vectors = Ranker.open(model).item_vectors.numpy()
    frame = pd.DataFrame({"item_idx": np.arange(1, len(vectors), dtype=np.int32), "embedding": list(vectors[1:])})
    rows = spark.createDataFrame(frame, "item_idx int, embedding array<float>")
    named = rows.join(items.select("item_idx", "item_id"), "item_idx", how="inner")
    return named.withColumn("model_version", F.lit(version)).select(schemas.columns("item_embeddings"))


def with_titles(lists: DataFrame, items: DataFrame) -> DataFrame:
    """Adds item_id and because_title (the title, or the identifier where the catalogue has none)."""
    names = items.select("item_idx", "item_id", F.coalesce("title", "item_id").alias("name"))
    because = names.select(F.col("item_idx").alias("because_idx"), F.col("name").alias("because_title"))
    return lists.join(names.select("item_idx", "item_id"), "item_idx", how="inner").join(
        F.broadcast(because), "because_idx", how="left"
    )
