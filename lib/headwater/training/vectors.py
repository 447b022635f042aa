"""A shop's own item vectors, of images, sounds or texts, as features of a model.

They come in a Parquet file with the columns ``item_id`` and ``vector``, all vectors of one length. Those longer than
``MAX_LENGTH`` go through a fixed random projection, which approximately keeps distances (Johnson and Lindenstrauss, 1984) and
needs no training: tomorrow's items, and those of another shop with the same encoder, are in the same space.
"""

from __future__ import annotations

import numpy as np
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, NumericType
from scipy import sparse
from sklearn.random_projection import GaussianRandomProjection

from headwater.errors import UsageError
from headwater.text import first_line

MAX_LENGTH = 64
"""Longer vectors are projected to this length; a model spends as much on each number as on a word of a title."""


def read(items: DataFrame, path: str) -> DataFrame:
    """``item_idx`` and ``vector``, array of float, of the catalogue's items in the file. Raises UsageError if it is not such a
    file, or if none is named: a fine-tune has the features of its champion, whatever today's config says."""
    if not path:
        raise UsageError(
            "model.vectors is empty, but the model has the feature 'vector'; name a Parquet file with the columns "
            "item_id and vector, and 'vector' in model.features"
        )
    try:
        found = items.sparkSession.read.parquet(path)
        kind = found.schema["vector"].dataType if "vector" in found.columns else None
        if isinstance(kind, ArrayType) and not isinstance(kind.elementType, NumericType):
            raise UsageError(
                f"model.vectors: {path} has a column vector of {kind.elementType.typeName()}, not of numbers"
            )
        found = found.select(F.col("item_id").cast("string"), F.col("vector").cast("array<float>").alias("vector"))
    except AnalysisException as error:
        raise UsageError(
            f"model.vectors: {path} is not a Parquet file with the columns item_id and vector: {first_line(error)}"
        ) from error
    return items.select("item_id", "item_idx").join(found.where(F.col("vector").isNotNull()), "item_id")


def features(items: DataFrame, path: str, n_items: int, buckets: int) -> sparse.csr_matrix:
    """The vectors of items up to ``n_items``, scaled to length 1, in the first columns of a CSR float32
    ``[n_items + 1, buckets]``; an item without one has a row of zeros.

    Raises UsageError if no item has a vector, or if vectors differ in length, are empty or are not finite.
    """
    rows = read(items, path).where(F.col("item_idx") <= n_items).dropDuplicates(["item_idx"]).toPandas()
    if not len(rows):
        raise UsageError(f"model.vectors: {path} has no vector for any catalogue item")
    lengths = rows["vector"].map(len)
    if not lengths.min():
        raise UsageError(f"model.vectors: {path} has an empty vector for item {rows['item_id'][lengths.argmin()]}")
    if lengths.nunique() > 1:
        raise UsageError(f"model.vectors: {path} has vectors of different lengths, {lengths.min()} and {lengths.max()}")
    vectors = np.stack(rows["vector"].to_list())
    if not np.isfinite(vectors).all():
        item = rows["item_id"][~np.isfinite(vectors).all(axis=1)].iloc[0]
        raise UsageError(f"model.vectors: {path} has a vector that is not finite for item {item}")
    return feature_matrix(vectors, rows["item_idx"].to_numpy(), n_items, buckets)


def feature_matrix(vectors: np.ndarray, items: np.ndarray, n_items: int, buckets: int) -> sparse.csr_matrix:
    """``vectors`` float ``[n, any]`` of ``items`` int ``[n]``, projected if longer than ``MAX_LENGTH`` and scaled to length 1,
    in the first columns of a CSR float32 ``[n_items + 1, buckets]``."""
    vectors = vectors.astype(np.float64)
    if vectors.shape[1] > MAX_LENGTH:
        vectors = GaussianRandomProjection(MAX_LENGTH, random_state=0).fit_transform(vectors)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    dense = np.zeros((n_items + 1, vectors.shape[1]), dtype=np.float32)
    dense[items] = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    found = sparse.csr_matrix(dense)
    found.resize(n_items + 1, buckets)
    return found
