"""Inputs of scoring other than the sequences, kept from one round of the warm stream to the next."""

from __future__ import annotations

import math
import os
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
from pyspark.sql import DataFrame

from headwater.errors import TrackingError
from headwater.job import Job
from headwater.nearline.history import publish_history
from headwater.scoring import executors, recent
from headwater.scoring.items import load_catalogue
from headwater.scoring.recent import RecentCounts
from headwater.tracking import Registry
from headwater.tracking.client import import_mlflow
from headwater.training import artifact


class ScoringCache:
    """The model, the catalogue and popularity. The model is sent to executors once per version, the catalogue is read again when
    `items` has a new version, and popularity is counted again after ``popular_seconds``."""

    def __init__(self, j: Job, popular_seconds: float = math.inf) -> None:
        self.job = j
        self.popular_seconds = popular_seconds
        self._champion: int | None = None
        self._models: dict[int, tuple[Path, str]] = {}
        self._items: tuple[int, DataFrame] | None = None
        self._recent: RecentCounts | None = None
        self._recent_of = (0, 0)  # the versions of the model and of `items` of these counts
        self._counted = (0, 0.0)  # the model version counted for, and the time of the count
        self._state: tuple[Any, Any, int] | None = None
        self.embedded = set[int]()
        """The model versions whose vectors are known to be in `item_embeddings`."""
        self._background = ThreadPoolExecutor(max_workers=1)
        self._history_copy: Future[None] | None = None
        self._background.submit(import_mlflow, j.config)  # this import takes as long as the start of Spark's session

    @cached_property
    def _registry(self) -> Registry:
        return Registry(self.job.config)

    @cached_property
    def _scratch(self) -> tempfile.TemporaryDirectory:
        return tempfile.TemporaryDirectory(prefix="headwater-")

    def champion(self) -> int:
        """The current champion, or the last known one while MLflow does not answer.

        Raises ModelError if there is no champion, TrackingError if MLflow does not answer and none is known yet.
        """
        try:
            self._champion = self._registry.need_champion()
        except TrackingError as error:
            if self._champion is None:
                raise
            self.job.log.warning("keeping the last known champion", model_version=self._champion, why=str(error))
        return self._champion

    def model(self, version: int) -> Path:
        """The verified folder of a model version."""
        return self._model(version)[0]

    def items(self) -> DataFrame:
        """The catalogue, cached."""
        version = self.job.warehouse.rows_version("items")
        if self._items is None or self._items[0] != version:
            self._forget_items()
            self._items = (version, self.job.warehouse.pinned("items").persist())
        return self._items[1]

    def shipped(self, version: int) -> executors.Shipped:
        """A model version and the catalogue's current state, on the executors."""
        topn, known = self.job.config.topn, self.recent_counts(version)
        key = (self.job.warehouse.rows_version("items"), self._counted)
        if self._state is None or self._state[0] != key:
            if self._state is not None:
                self._state[1].destroy()  # unpersist would leave the driver's copy in a file
            catalogue = load_catalogue(self.items(), known, topn, self.job.log.warning)
            self._state = (key, self.job.spark.sparkContext.broadcast(catalogue), len(catalogue.available) - 1)
        _, state, n_items = self._state
        return executors.Shipped(self._model(version)[1], state, n_items, self.job.config.sequence.max_length)

    def has_counted(self, version: int) -> bool:
        """Whether the counts of recent events that are kept are those of a model version, and still good."""
        model, at = self._counted
        return model == version and time.monotonic() - at < self.popular_seconds

    def recent_counts(self, version: int) -> RecentCounts:
        """Counts of recent events, for a model version."""
        if self._recent is None or not self.has_counted(version):
            events, histories = (self.job.warehouse.read(table) for table in ("events", "sequences"))
            trained = artifact.trained_items(self.model(version))
            of = (version, self.job.warehouse.rows_version("items"))
            before = self._recent if of == self._recent_of else None
            self._recent = recent.count(events, histories, self.items(), self.job.config.topn, trained, before)
            self._recent_of, self._counted = of, (version, time.monotonic())
        return self._recent

    def indexed(self, shipped: executors.Shipped, version: int, users: pd.DataFrame) -> tuple[executors.Shipped, float]:
        """The same with an index of the items that may be shown, and its recall on some users (``Scorer.lists``)."""
        from headwater.scoring import indexed

        path = Path(self._scratch.name) / f"headwater-{uuid4().hex}.index"
        ranker = artifact.ranker(self.model(version))
        recall = indexed.make(ranker, shipped.catalogue.value, self.job.config.topn, path, users, shipped.max_length)
        self.job.spark.sparkContext.addFile(str(path))
        return replace(shipped, index=path.name), recall

    def publish_history(self, j: Job) -> None:
        """Copy lists published in `topn` to `topn_history` in the background; ``wait`` waits for it."""
        assert not j.warehouse.holds("topn_history"), "the copy would go on after the lock is released"
        self._history_copy = self._background.submit(publish_history, j)

    def wait(self) -> None:
        """Wait for the background work and raise its error, if any. Call it before its tables are locked or packed."""
        copy, self._history_copy = self._history_copy, None
        if copy is not None:
            copy.result()

    def close(self) -> None:
        """Wait for background work, then free cached frames and temporary files."""
        with self._background:
            self.wait()
        self._forget_items()
        self._scratch.cleanup()

    def _forget_items(self) -> None:
        if self._items is not None:
            self._items[1].unpersist()
            self._items = None

    def _model(self, version: int) -> tuple[Path, str]:
        try:
            os.utime(self._models[version][0])  # in use: maintenance removes folders not touched for long
        except (KeyError, FileNotFoundError):
            folder = self._registry.download(version)
            self._models[version] = (folder, executors.ship(self.job.spark, folder, Path(self._scratch.name)))
        return self._models[version]
