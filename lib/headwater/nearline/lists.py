"""Changed sequences into `topn`, `sections` and `topn_history`: the body of `score_topn`.

Further lists (`topn.sections`) are replaced first, then the Top-N, each in one commit; what was published is then taken
from the change feed of `topn` into `topn_history`, so that a run that is killed in between is completed by the next one. A
stream takes its next batch meanwhile.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace as with_other
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headwater import schemas, sequences
from headwater.errors import HeadwaterError, TrackingError
from headwater.in_hand import FEW, constant, held
from headwater.job import Job
from headwater.scoring import items as goods
from headwater.scoring import lately, lists, publish
from headwater.scoring.lately import Lately
from headwater.scoring.served import SERVED
from headwater.tables import failpoint, readers, still_there
from headwater.tracking import Registry
from headwater.training import artifact


class Shelf:
    """What scoring needs beside the sequences, kept from one run to the next in the same session.

    The model is sent to executors once a version; the catalogue is read again when `items` has a new version; what is
    popular is counted again when ``popular_seconds`` have gone by.
    """

    def __init__(self, j: Job, popular_seconds: float = 0) -> None:
        self.job = j
        self.popular_seconds = popular_seconds
        self._champion: int | None = None
        self._models: dict[int, tuple[Path, str]] = {}
        self._items: tuple[int, DataFrame] | None = None
        self._lately: tuple[float, Lately] | None = None
        self._state: tuple[Any, Any] | None = None
        self._aside = ThreadPoolExecutor(max_workers=1)
        self._history: Future[None] | None = None

    @cached_property
    def _registry(self) -> Registry:
        return Registry(self.job.config)

    @cached_property
    def _scratch(self) -> tempfile.TemporaryDirectory:
        return tempfile.TemporaryDirectory(prefix="headwater-")

    def champion(self) -> int:
        """The champion of this moment; the last one while MLflow does not answer. Raises ModelError without any."""
        try:
            self._champion = self._registry.need_champion()
        except TrackingError as error:
            if self._champion is None:
                raise
            self.job.log.warning("the last champion stays", model_version=self._champion, why=str(error))
        return self._champion

    def model(self, version: int) -> Path:
        """The verified folder of a version."""
        return self._model(version)[0]

    def items(self) -> DataFrame:
        """The catalogue, cached."""
        return self._catalogue()[1]

    def shipped(self, version: int) -> lists.Shipped:
        """A model version and the catalogue's present state, on the executors."""
        items_version, items = self._catalogue()
        topn = self.job.config.topn
        model, archive = self._model(version)
        if self._lately is None or time.monotonic() - self._lately[0] >= self.popular_seconds:
            events, histories = (self.job.warehouse.read(table) for table in ("events", "sequences"))
            trained = artifact.facts(model)["n_items"]
            self._lately = (time.monotonic(), lately.count(events, histories, items, topn, trained))
        counted, known = self._lately
        key = (items_version, counted)
        if self._state is None or self._state[0] != key:
            if self._state is not None:
                self._state[1].unpersist()
            state = self.job.spark.sparkContext.broadcast(goods.catalogue(items, known, topn))
            self._state = (key, state)
        return lists.Shipped(archive, self._state[1])

    def indexed(self, shipped: lists.Shipped, version: int, users: pd.DataFrame) -> tuple[lists.Shipped, float]:
        """The same with an index of what may be shown, and its recall on some users (``Scorer.lists``)."""
        from headwater.models.ranker import Ranker
        from headwater.scoring import indexed

        path = Path(self._scratch.name) / f"headwater-{uuid4().hex}.index"
        ranker = Ranker.open(self.model(version))
        recall = indexed.make(ranker, shipped.catalogue.value, self.job.config.topn, path, users)
        self.job.spark.sparkContext.addFile(str(path))
        return with_other(shipped, index=path.name), recall

    def publish_history(self, j: Job) -> None:
        """What `topn` has published into `topn_history`, aside; ``settle`` waits for it. To be called without their locks."""
        self._history = self._aside.submit(publish_history, j)

    def settle(self) -> None:
        """Wait for what goes on aside, and raise what it raised. To be called before its tables are locked or packed."""
        going, self._history = self._history, None
        if going is not None:
            going.result()

    def close(self) -> None:
        """Free what the session and the disk hold."""
        with self._aside:
            self.settle()
        self._forget_items()
        self._scratch.cleanup()

    def _forget_items(self) -> None:
        if self._items is not None:
            self._items[1].unpersist()
            self._items = None

    def _model(self, version: int) -> tuple[Path, str]:
        if version not in self._models:
            folder = self._registry.download(version)
            self._models[version] = (folder, lists.ship(self.job.spark, folder, Path(self._scratch.name)))
        return self._models[version]

    def _catalogue(self) -> tuple[int, DataFrame]:
        version = self.job.warehouse.version("items")
        if self._items is None or self._items[0] != version:
            self._forget_items()
            self._items = (version, self.job.warehouse.read("items", version).persist())
        return self._items


def score(j: Job, mode: str, shelf: Shelf | None = None) -> dict[str, int | float | str]:
    """Lists of all users (``full``), or of those whose sequence changed since the last run (``nearline``)."""
    if shelf is None:
        with closing(Shelf(j)) as own:
            return score(j, mode, own)
    shelf.settle()
    topn = j.config.topn
    if topn.index == "faiss":
        from headwater.scoring.index import library

        library()  # where it is missing nothing is begun
    tables = j.warehouse
    tables.read("sequences")
    version = shelf.champion()
    counts: dict[str, int | float | str] = {
        "users_scored": 0,
        "users_changed": 0,
        "model_version": version,
        "mode": mode,
    }
    with tables.locked("topn", "topn_history", "sections", "item_embeddings"), ExitStack() as stack:
        tables.create("topn")
        publish_history(j)
        sequences_version = tables.version("sequences")
        last = tables.last_note("topn", j.name) if mode == "nearline" else None
        unread = readers.unread(tables, readers.LISTS)
        if last is not None and not unread:
            return counts

        def keep(frame: DataFrame) -> DataFrame:
            stack.callback(frame.unpersist)
            return frame.persist()

        note = {"job": j.name, "mode": mode, "sequences_version": sequences_version, "model_version": version}
        after = last["sequences_version"] if last else None
        few = sum(commit.rows for commit in unread) <= FEW
        wanted, users = wanted_sequences(j, after, sequences_version, keep, few)
        counts["users_scored"], few = users, few and users <= FEW
        if not counts["users_scored"] and last is not None:
            tables.append(constant(j.spark, [], schemas.ddl("topn")), "topn", note)
            return counts
        shipped, items = shelf.shipped(version), shelf.items()
        if topn.index == "faiss":
            shipped, searched = by_index(j, shelf, shipped, version, wanted, int(counts["users_scored"]))
            counts |= searched
        # not before the model is on its way: an archive that comes as tasks begin is unpacked by two at once
        beside = stack.enter_context(ThreadPoolExecutor(max_workers=2))
        standing = {
            table: beside.submit(standing_lists, j, table, wanted if last else None, few)
            for table in ("topn", "sections")
            if table == "topn" or topn.sections or tables.exists("sections")
        }
        scored = goods.with_titles(lists.recommend(wanted, shipped, topn), items)
        scored = publish.with_reasons(scored)
        scored = held(scored)[0] if few else keep(scored)
        if bad := publish.unfit(scored).count():
            raise HeadwaterError(f"{bad} of the new lists are not fit to publish; topn stays as it was")
        rows = publish.topn_rows(scored, wanted, version, j.now)
        rows = held(rows)[0] if few else rows
        changed = beside.submit(publish.changed_users(rows, standing["topn"].result()).count)
        write_embeddings(j, version, shelf.model(version), items)
        if "sections" in standing:
            shelves = publish.section_rows(scored, version, j.now)
            replace(j, "sections", shelves, standing["sections"].result() if last else None, note)
        failpoint("score_topn:before_topn")
        replace(j, "topn", rows, standing["topn"].result() if last else None, note)
        failpoint("score_topn:after_topn")
        counts["users_changed"] = changed.result()
    shelf.publish_history(j)
    return counts


def by_index(
    j: Job, shelf: Shelf, shipped: lists.Shipped, version: int, wanted: DataFrame, users: int
) -> tuple[lists.Shipped, dict[str, float | str]]:
    """What executors need to search an index, where so many users pay for making one; and what to say of it at the end.

    Its recall goes to `model_metrics`.
    """
    from headwater.evaluation.measure import BESIDE
    from headwater.scoring import indexed

    if not indexed.pays(users, len(shipped.catalogue.value.available)):
        return shipped, {"index": "exact", "recall": 1.0}
    known = wanted.where(F.size("item_idx") > 0)
    some = lists.histories(known.orderBy(F.xxhash64("user_id")).limit(indexed.SAMPLE)).toPandas()
    shipped, recall = shelf.indexed(shipped, version, some)
    protocol = artifact.facts(shelf.model(version))["protocol"]
    row = (BESIDE, SERVED, protocol, "test", "all", indexed.METRIC, j.config.topn.n, recall, len(some), version, j.now)
    note = {"job": j.name, "model_version": version}
    j.warehouse.append(constant(j.spark, [row], schemas.ddl("model_metrics")), "model_metrics", note)
    return shipped, {"index": "faiss", "recall": round(recall, 4)}


def replace(j: Job, table: str, rows: DataFrame, standing: DataFrame | None, note: dict[str, Any]) -> None:
    """Let ``rows`` take the place of all rows of a table, or of the ``standing`` ones only, in one commit."""
    if standing is None:
        j.warehouse.overwrite(rows, table, note)
        return
    key, live = schemas.KEYS[table], "new.item_id IS NOT NULL"
    withdrawn = publish.with_withdrawn(rows, standing, key)
    j.warehouse.merge(withdrawn, table, note, delete_when=f"NOT ({live})", insert_when=live)


def standing_lists(j: Job, table: str, users: DataFrame | None, few: bool) -> DataFrame:
    """The rows of a table, or those of some users, written down: a table of lists is read once for a few of them."""
    j.warehouse.create(table)
    every = j.warehouse.read(table)
    if users is None:
        return every
    theirs = every.join(users.select("user_id"), "user_id", how="left_semi")
    return held(theirs)[0] if few else theirs.localCheckpoint()


def wanted_sequences(
    j: Job, after: int | None, until: int, keep: Callable[[DataFrame], DataFrame], few: bool
) -> tuple[DataFrame, int]:
    """All sequences at version ``until``, or those of users who changed in the versions after one, held in hand where
    they are ``few``; and how many."""
    if after is not None:
        changed = sequences.newest(j.warehouse.changes("sequences", after, until))
        if (found := still_there(lambda: held(changed) if few else counted(keep(changed)))) is not None:
            return found
        j.log.warning("the change feed of sequences cannot be read; all users are scored", after=after, until=until)
    return counted(keep(j.warehouse.read("sequences", until)))


def counted(frame: DataFrame) -> tuple[DataFrame, int]:
    """A frame, and how many rows it has."""
    return frame, frame.count()


def publish_history(j: Job) -> None:
    """Append to `topn_history` what `topn` has published since the last time."""
    tables = j.warehouse
    with tables.locked("topn_history"):
        tables.create("topn_history")
        last = tables.last_note("topn_history", j.name)
        until = tables.version("topn")
        after = last["topn_version"] if last else 0
        if after < until:
            feed = tables.changes("topn", after, until).where(F.col("_change_type").isin(*publish.PUBLISHED))
            tables.append(feed, "topn_history", {"job": j.name, "topn_version": until})
            failpoint("score_topn:after_history")


def write_embeddings(j: Job, version: int, model: Path, items: DataFrame) -> None:
    """Write a model version's item vectors, once."""
    tables = j.warehouse
    tables.create("item_embeddings")
    last = tables.last_note("item_embeddings", j.name)
    if last is not None and last["model_version"] == version:
        return
    if tables.read("item_embeddings").where(F.col("model_version") == version).limit(1).count() == 0:
        rows = goods.embeddings(j.spark, model, items, version)
        tables.append(rows, "item_embeddings", {"job": j.name, "model_version": version})
