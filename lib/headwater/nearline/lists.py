"""Score changed sequences into `topn`, `sections` and `topn_history`: the body of `score_topn`.

Users whose lists contain items that may no longer be shown get new lists as well.
Further lists (`topn.sections`) are replaced first, then the Top-N, each in one commit. Published rows are then copied from the
change feed of `topn` to `topn_history`, so the next run completes a run that was killed in between. A stream copies them while
it ingests its next batch (``ScoringCache.publish_history``).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headwater import clock, schemas, sequences
from headwater.errors import HeadwaterError
from headwater.frames import MAX_COLLECTED_ROWS, cached, collected, frame_of, read_once
from headwater.job import Job
from headwater.nearline.cache import ScoringCache
from headwater.nearline.history import publish_history
from headwater.nearline.left_out import may_have_hidden, rules, users_with_hidden_items
from headwater.nearline.sequences import Update
from headwater.scoring import executors, publish
from headwater.scoring.items import embedding_rows, with_titles
from headwater.scoring.served import SERVED
from headwater.tables import Position, bytes_of, failpoint, readers, try_read_changes
from headwater.training import artifact

TABLES = ("topn", "topn_history", "sections", "item_embeddings")
"""The tables that scoring writes to."""
LONG_JOB_BYTES = 32 * 2**20
"""Bytes of `sequences` above which scoring all users is a long job; about a hundred thousand users."""


@dataclass(frozen=True)
class Request:
    """The users to score: their ``rows`` of `sequences` at ``version``, by ``rules`` (see there) or later ones, with a version of
    the model.

    ``few``: these rows, the new lists and the current lists are collected on the driver. ``all_users``: these are all users; any
    other user with a list loses it. ``update``: what brings `sequences` from ``version`` to these rows, if it is not committed.
    """

    mode: str
    model: int
    rows: DataFrame
    users: int
    few: bool
    all_users: bool
    version: int
    rules: dict[str, Any]
    update: Update | None = None

    def commit_sequences(self) -> int:
        """Commit the rows to `sequences` if they are not yet; returns the version that has them."""
        return self.version if self.update is None else self.update.commit()["sequences_version"]

    def note(self, j: Job, version: int) -> dict[str, Any]:
        """The note of lists that were made from a version of `sequences`."""
        read = readers.progress_note(j.warehouse, readers.LISTS, version)
        return {"job": j.name, "mode": self.mode, "model_version": self.model, **read, **self.rules}


@dataclass(frozen=True)
class CurrentLists:
    """The current ``rows`` of a table of lists for the requested users; for few users only the key and item_id.

    ``without``: the users who have no rows there, and the job's position before that was read. It is None if that is unknown, or
    if some list is shorter than ``topn.n``, so that a merge may add rows to it.
    """

    rows: DataFrame
    without: tuple[Position, DataFrame] | None = None


def score(j: Job, mode: str) -> dict[str, int | float | str]:
    """The whole job: ``refresh`` the lists, then copy what was published to `topn_history`."""
    j.long = mode == "full" and bytes_of(j.config.paths.warehouse, "sequences") > LONG_JOB_BYTES
    with closing(ScoringCache(j)) as cache:
        counts = refresh(j, mode, cache)
    publish_history(j)
    return counts


def refresh(j: Job, mode: str, cache: ScoringCache, update: Update | None = None) -> dict[str, int | float | str]:
    """Score all users (``full``), or only those whose sequence changed since the last run or whose lists contain items that may
    no longer be shown (``nearline``). Returns the counts of the closing line.

    An ``update`` of `sequences` is committed before the lists, while they are being made if these are the only users to score.
    """
    cache.wait()
    if j.config.topn.index == "faiss":
        from headwater.scoring.index import library

        library()  # fail before any work if it is missing
    tables = j.warehouse
    tables.read("sequences")
    version = cache.champion()
    counts: dict[str, int | float | str] = {
        "users_scored": 0,
        "users_changed": 0,
        "model_version": version,
        "mode": mode,
    }
    with tables.locked(*TABLES), ExitStack() as stack:
        tables.create("topn")
        publish_history(j)
        request = requested(j, mode, cache, version, update, stack)
        if request is None:
            return counts
        if request.users or request.all_users:
            shipped = cache.shipped(version)
            if j.config.topn.index == "faiss":
                shipped, searched = with_index(j, cache, shipped, request)
                counts |= searched
            counts["users_scored"] = request.users
            counts["users_changed"] = renew(j, cache, shipped, request, stack)
        else:
            note = request.note(j, request.commit_sequences())
            tables.append(frame_of(j.spark, [], schemas.ddl("topn")), "topn", note)
    return counts


def requested(
    j: Job, mode: str, cache: ScoringCache, model: int, update: Update | None, stack: ExitStack
) -> Request | None:
    """The sequences to score, kept until the stack closes; of nobody where only the note of the lists has to say that items were
    looked at; None if there is no reason to change the lists of the last run.

    An ``update`` is part of the request if it has all users to score. It is committed first otherwise, and where recent events
    are to be counted, for which all sequences are read.
    """
    tables, now = j.warehouse, rules(j, cache, model)
    request = partial(Request, mode=mode, model=model, rules=now)
    # the version first: the progress must count all commits up to it
    version, progress = tables.version("sequences"), readers.progress(tables, readers.LISTS)
    follows, before = mode == "nearline" and progress.after is not None, progress.note or {}
    looks = follows and may_have_hidden(tables, before, now)
    hidden = users_with_hidden_items(j, before, now) if looks else None
    if update is not None:
        only_update = follows and not progress.unread and hidden is None
        if update.rows is not None and only_update and cache.has_counted(model):
            return request(
                rows=update.rows, users=update.users, few=True, all_users=False, version=version, update=update
            )
        update.commit()
        version, progress = tables.version("sequences"), readers.progress(tables, readers.LISTS)
    after = progress.after if mode == "nearline" else None
    if after is not None and not progress.unread and hidden is None:
        nobody = frame_of(j.spark, [], schemas.ddl("sequences"))
        return request(rows=nobody, users=0, few=True, all_users=False, version=version) if looks else None
    changed = None if after is None else changed_sequences(j, after, version, progress.fits_driver, stack)
    if changed is None:
        after, changed = None, read_once(tables.read("sequences", version), collect=False, stack=stack)
    elif hidden is not None:
        theirs = tables.read("sequences", version).join(hidden, "user_id", how="left_semi")
        others = theirs.join(changed[0].select("user_id"), "user_id", how="left_anti")
        changed = read_once(changed[0].unionByName(others), collect=False, stack=stack)
    rows, users = changed
    few = progress.fits_driver and users <= MAX_COLLECTED_ROWS
    return request(rows=rows, users=users, few=few, all_users=after is None, version=version)


def changed_sequences(j: Job, after: int, until: int, few: bool, stack: ExitStack) -> tuple[DataFrame, int] | None:
    """The newest sequences of users who changed in the versions ``after + 1 … until``, and their number; None if the change feed
    cannot be read."""
    found = try_read_changes(
        lambda: read_once(sequences.newest(j.warehouse.changes("sequences", after, until)), few, stack)
    )
    if found is None:
        j.log.warning("the change feed of sequences cannot be read; all users are scored", after=after, until=until)
    return found


def with_index(
    j: Job, cache: ScoringCache, shipped: executors.Shipped, request: Request
) -> tuple[executors.Shipped, dict[str, float | str]]:
    """The model and catalogue, with an index if there are enough users to pay for building it, and fields for the closing line.

    The recall of the index is written to `model_metrics`.
    """
    from headwater.evaluation.measure import BASELINE_VERSION
    from headwater.scoring import indexed

    if not indexed.pays_off(request.users, int(shipped.catalogue.value.available.sum())):
        return shipped, {"index": "exact", "recall": 1.0}
    version = request.model
    known = request.rows.where(F.size("item_idx") > 0)
    some = executors.histories(known.orderBy(F.xxhash64("user_id")).limit(indexed.SAMPLE)).toPandas()
    shipped, recall = cache.indexed(shipped, version, some)
    protocol = artifact.facts(cache.model(version))["protocol"]
    metric, n = indexed.METRIC, j.config.topn.n
    row = (BASELINE_VERSION, SERVED, protocol, "test", "all", metric, n, recall, len(some), version, j.now)
    note = {"job": j.name, "model_version": version}
    j.warehouse.append(frame_of(j.spark, [row], schemas.ddl("model_metrics")), "model_metrics", note)
    return shipped, {"index": "faiss", "recall": round(recall, 4)}


def renew(j: Job, cache: ScoringCache, shipped: executors.Shipped, request: Request, stack: ExitStack) -> int:
    """Make the lists, check every row and replace the current lists; returns how many users' Top-N changed.

    Raises HeadwaterError, before anything is replaced, if some list is not fit to publish.
    """
    tables, version = j.warehouse, request.model
    # start only after the model has been sent: an archive that arrives while tasks start is unpacked by two of them at once
    beside = stack.enter_context(ThreadPoolExecutor(max_workers=3))
    sequences_commit = beside.submit(request.commit_sequences)
    current = {
        table: beside.submit(current_lists, j, table, request)
        for table in ("topn", "sections")
        if table == "topn" or j.config.topn.sections or tables.exists("sections")
    }
    scored = executors.recommend(request.rows, shipped, j.config.topn)
    scored = collected(scored)[0] if request.few else cached(scored, stack)
    unfit = beside.submit(publish.unfit(scored, shipped.n_items).count)
    wording, titled = j.config.topn.wording, with_titles(executors.places(scored), cache.items(), shipped.n_items)
    places = publish.with_reasons(titled, wording)
    rows = publish.topn_rows(places)
    if bad := unfit.result():
        raise HeadwaterError(
            f"{bad} of the new lists by model version {version} are not fit to publish; topn is unchanged"
        )
    rows = collected(rows)[0] if request.few else rows
    changed = beside.submit(publish.changed_users(rows, current["topn"].result().rows).count)
    write_embeddings(j, cache, version)
    note = request.note(j, sequences_commit.result())
    if "sections" in current:
        sections = publish.stamped(publish.section_rows(places, wording), "sections", version, clock.now())
        replace(j, "sections", sections, current["sections"].result(), request, note)
    failpoint("score_topn:before_topn")
    current_topn = current["topn"].result()
    rows = publish.stamped(
        rows, "topn", version, clock.now()
    )  # just before they can be seen: actions are attributed by it
    replace(j, "topn", rows, current_topn, request, note)
    failpoint("score_topn:after_topn")
    return changed.result()


def current_lists(j: Job, table: str, request: Request) -> CurrentLists:
    """The current lists in a table for the requested users. Those of some users are collected or checkpointed, so the table is
    read only once."""
    j.warehouse.create(table)
    position = j.warehouse.position(table, j.name) if request.few and table == "topn" else None
    rows = j.warehouse.pinned(table)  # it is compared with the new lists while they are written
    if request.all_users:
        return CurrentLists(rows)
    users = request.rows.select("user_id")
    theirs = rows.join(users, "user_id", how="left_semi")
    if not request.few:
        return CurrentLists(theirs.localCheckpoint())
    theirs, _ = collected(theirs.select(*schemas.KEYS[table], "item_id"))
    if position is None:
        return CurrentLists(theirs)
    places = users.join(theirs.groupBy("user_id").count(), "user_id", how="left")
    incomplete, _ = collected(places.where(F.coalesce("count", F.lit(0)) < j.config.topn.n))
    return CurrentLists(theirs, (position, incomplete) if incomplete.where("count > 0").isEmpty() else None)


def replace(j: Job, table: str, rows: DataFrame, current: CurrentLists, request: Request, note: dict[str, Any]) -> None:
    """Replace all rows of a table, or only the ``current`` ones, by ``rows`` in one commit. Lists of users who had none may be
    appended in a separate commit (``Warehouse.upsert``)."""
    if request.all_users:
        j.warehouse.overwrite(rows, table, note)
        return
    live = "new.item_id IS NOT NULL"
    changes = publish.with_deletions(rows, current.rows, schemas.KEYS[table])
    if current.without is None:
        j.warehouse.merge(changes, table, note, delete_when=f"NOT ({live})", insert_when=live)
        return
    position, without = current.without
    new = rows.join(without, "user_id", how="left_semi")
    known = changes.join(without, "user_id", how="left_anti")
    j.warehouse.upsert(position, known, new, table, note, delete_when=f"NOT ({live})")


def write_embeddings(j: Job, cache: ScoringCache, version: int) -> None:
    """Write a model version's item vectors, once."""
    tables = j.warehouse
    if version in cache.embedded:
        return
    tables.create("item_embeddings")
    last = tables.last_note("item_embeddings", j.name)
    known = tables.read("item_embeddings").where(F.col("model_version") == version)
    if (last is None or last["model_version"] != version) and known.isEmpty():
        rows = embedding_rows(j.spark, cache.model(version), cache.items(), version)
        tables.append(rows, "item_embeddings", {"job": j.name, "model_version": version})
    cache.embedded.add(version)
