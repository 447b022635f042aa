"""The lists that held-out users would have been served, made by the scorer with its rules, groups and fallbacks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from headwater import schemas, sequences
from headwater.config import Config
from headwater.frames import frame_of
from headwater.scoring import executors
from headwater.scoring.items import load_catalogue
from headwater.scoring.recent import RecentCounts

if TYPE_CHECKING:
    from torch import Tensor

    from headwater.evaluation.measure import Measured
    from headwater.evaluation.protocol import Evaluation
    from headwater.models.ranker import Ranker


SERVED = "as_served"
"""The ``model`` in rows of ``model_metrics`` that measure lists as served instead of the ranking alone."""
MISCALIBRATION = "miscalibration"
"""The name in ``model_metrics`` of the mean distance of lists from their users' own mix of categories (``taste``)."""
TESTED_USERS = 500
"""The number of users whose reasons are tested, the first ones: each user costs several encodings."""


@dataclass(frozen=True)
class Served:
    """``lists``: items int64 ``[users, n]``, 0 where a list is shorter; ``group``: the name of each user's group of
    ``topn.strategies``, empty for users in none, ``[users]``; ``metrics``: how well the model's reasons hold
    (``faithfulness.shares``), and ``MISCALIBRATION`` if the catalogue has categories."""

    lists: np.ndarray
    group: np.ndarray
    metrics: dict[str, float]


def measured(evaluation: Evaluation, items: DataFrame, ranker: Ranker) -> Measured:
    """The metrics of the lists that a model version would have served to the held-out users."""
    from headwater.scoring import repeats

    config = evaluation.config
    unknown = frame_of(items.sparkSession, [], schemas.ddl("sequences"))
    histories = sequences.build(evaluation.before, unknown, config.sequence.max_length)
    intervals = repeats.intervals_if_needed(histories, config.topn, len(evaluation.decayed) - 1)
    recent = RecentCounts(evaluation.decayed, evaluation.until, intervals)
    served = to_users(evaluation.held.users, histories, items, recent, ranker, config)
    return evaluation.lists(served.lists, served.group, ranker.unit_vectors.numpy(), served.metrics)


def to_users(
    users: np.ndarray, histories: DataFrame, items: DataFrame, known: RecentCounts, ranker: Ranker, config: Config
) -> Served:
    """The lists that ``users`` (ids) would have been served when ``known`` was counted and ``histories`` were their rows of
    ``sequences``, from items first seen by then. A user without a row is served as one without a history."""
    import torch

    from headwater.scoring import faithfulness, taste
    from headwater.scoring.scorer import Scorer

    topn_only = config.topn.model_copy(update={"sections": ()})
    catalogue = load_catalogue(items, known, topn_only)
    at_that_time = replace(catalogue, available=catalogue.available & (catalogue.first_seen <= known.until))
    scorer = Scorer(ranker, at_that_time, topn_only, max_length=config.sequence.max_length)
    frame = _frame(users, histories)
    found = np.zeros((len(users), topn_only.n), dtype=np.int64)
    group = np.full(len(users), "", dtype=object)
    tested: list[tuple[Tensor, ...]] = []
    distance = np.full(len(users), np.nan)
    for start in range(0, len(users), topn_only.batch_users):
        some = slice(start, start + topn_only.batch_users)
        theirs, member, top = scorer.top(frame.iloc[some])
        found[some], group[some] = top.item_idx, scorer.names[member]
        distance[some] = taste.miscalibration(taste.mix(theirs.steps, catalogue), top.item_idx, catalogue)
        if start < TESTED_USERS:
            tested.append((theirs.history, theirs.context, *scorer.own_places(top)))
    metrics = {} if np.isnan(distance).all() else {MISCALIBRATION: float(np.nanmean(distance))}
    if tested:
        tensors = (torch.cat(parts)[:TESTED_USERS] for parts in zip(*tested, strict=True))
        metrics |= faithfulness.shares(scorer.ranker, *tensors)
    return Served(found, group, metrics)


def _frame(users: np.ndarray, histories: DataFrame) -> pd.DataFrame:
    """The rows of the users, in their order, in the form that the scorer reads."""
    wanted = histories.sparkSession.createDataFrame(pd.DataFrame({"user_id": users}), "user_id string")
    theirs = executors.histories(histories.join(wanted, "user_id", how="left_semi")).toPandas()
    frame = theirs.set_index("user_id").reindex(users)
    for name in frame.columns:
        every = [values if isinstance(values, np.ndarray) else np.empty(0) for values in frame[name]]
        frame[name] = pd.Series(every, index=frame.index, dtype=object)
    return frame.rename_axis("user_id").reset_index()
