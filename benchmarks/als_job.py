"""Spark ML's ALS as a user would run it every night: a saved model, everybody's Top-N, a Delta table.

    python benchmarks/als_job.py MODEL TABLE

`score_job.py` runs it as a process beside `score_topn`, and `topn_job.py` uses its parts. Java has its optimising compiler here,
which makes Spark ML's products; otherwise the session is that of a job of ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame, SparkSession

from headwater.config import Config
from headwater.spark import session

N = 10


def main(model: str, table: str) -> None:
    spark = optimised("als")
    lists(model).write.format("delta").mode("overwrite").save(table)
    spark.stop()


def optimised(name: str) -> SparkSession:
    """A session with Java's optimising compiler, which a short local job of ours leaves out."""
    return session(Config(spark={"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=4"}), name)


def lists(model: str) -> DataFrame:
    """Rows of user, rank, item and score: `recommendForAllUsers`, its documented way."""
    loaded = ALSModel.load(model).setUserCol("user").setItemCol("item")
    rows = loaded.recommendForAllUsers(N).selectExpr("user", "posexplode(recommendations) AS (place, row)")
    return rows.selectExpr("user", "place + 1 AS rank", "row.item", "row.rating AS score")


def save(spark: SparkSession, users: np.ndarray, items: np.ndarray, model: str) -> None:
    """A saved ALS model with these factors, float32 ``[users or items, dim]``. Its constructor is private; its files are plain
    Parquet."""
    one = spark.createDataFrame([(0, 0, 1.0)], "user int, item int, rating float")
    ALS(rank=users.shape[1], maxIter=0).fit(one).save(model)
    for vectors, name in ((users, "userFactors"), (items, "itemFactors")):
        factors(spark, vectors).write.mode("overwrite").parquet(str(Path(model) / name))


def factors(spark: SparkSession, vectors: np.ndarray) -> DataFrame:
    """Rows of id and features."""
    frame = pd.DataFrame({"id": np.arange(len(vectors), dtype=np.int32), "features": list(vectors)})
    return spark.createDataFrame(frame, "id int, features array<float>")


if __name__ == "__main__":
    main(*sys.argv[1:])
