"""Write every user's Top-N with the champion: all users, or only those whose sequence changed since the last run.

    python jobs/score_topn.py --mode full
    python jobs/score_topn.py --mode nearline

Further lists of each user (`topn.sections`) are replaced first, in `sections`, and then the Top-N, each in one commit; what
was published is then taken from the change feed of `topn` into `topn_history`, so that a run that is killed in between
is completed by the next one.
"""

from __future__ import annotations

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headwater import job, popularity, schemas
from headwater.errors import HeadwaterError
from headwater.job import Job
from headwater.scoring import items as goods
from headwater.scoring import lists, publish
from headwater.tables import failpoint
from headwater.tracking import Registry

app = typer.Typer(add_completion=False)


class Mode(StrEnum):
    full = "full"
    nearline = "nearline"


@app.command(help=__doc__)
def main(
    mode: Mode = typer.Option(Mode.full, help="all users, or only the changed ones"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("score_topn", lambda j: score(j, mode.value), config, set_)


def score(j: Job, mode: str) -> dict[str, int | str]:
    tables, topn = j.warehouse, j.config.topn
    tables.read("sequences")
    registry = Registry(j.config)
    version = registry.need_champion()
    model = registry.download(version)
    with tables.locked("topn", "topn_history", "sections", "item_embeddings"), tempfile.TemporaryDirectory() as scratch:
        tables.create("topn")
        publish_history(j)
        sequences_version = tables.version("sequences")
        last = tables.last_note("topn", j.name) if mode == "nearline" else None
        wanted = tables.read("sequences", sequences_version)
        if last is not None:
            wanted = changed_sequences(j, wanted, last["sequences_version"], sequences_version)
        items = tables.read("items").persist()
        wanted = wanted.persist()
        users = wanted.count()
        counts: dict[str, int | str] = {
            "users_scored": users,
            "users_changed": 0,
            "model_version": version,
            "mode": mode,
        }
        if users == 0 and last is not None:
            return counts
        popular = popularity.of_items(tables.read("events"), items, topn.popular_half_life_days)
        bundle = lists.ship(j.spark, model, goods.catalogue(items, popular), Path(scratch))
        scored = goods.with_titles(lists.recommend(wanted, bundle, topn), items)
        scored = publish.with_reasons(scored).persist()
        if bad := publish.unfit(scored).count():
            raise HeadwaterError(f"{bad} of the new lists are not fit to publish; topn stays as it was")
        rows = publish.topn_rows(scored, wanted, version, j.now)
        counts["users_changed"] = publish.changed_users(rows, tables.read("topn")).count()
        write_embeddings(j, version, model, items)
        note = {"job": j.name, "mode": mode, "sequences_version": sequences_version, "model_version": version}
        if topn.sections or tables.exists("sections"):
            replace(j, "sections", publish.section_rows(scored, version, j.now), wanted, last is not None, note)
        failpoint("score_topn:before_topn")
        replace(j, "topn", rows, wanted, last is not None, note)
        failpoint("score_topn:after_topn")
        publish_history(j)
        return counts


def replace(j: Job, table: str, rows: DataFrame, users: DataFrame, only_theirs: bool, note: dict[str, Any]) -> None:
    """Let ``rows`` take the place of all rows of a table, or of those of ``users`` only, in one commit."""
    if not only_theirs:
        j.warehouse.overwrite(rows, table, note)
        return
    j.warehouse.create(table)
    key, live = schemas.KEYS[table], "new.item_id IS NOT NULL"
    withdrawn = publish.with_withdrawn(rows, j.warehouse.read(table), users, key)
    j.warehouse.merge(withdrawn, table, note, delete_when=f"NOT ({live})", insert_when=live)


def changed_sequences(j: Job, sequences: DataFrame, after: int, until: int) -> DataFrame:
    """Rows of users whose sequence changed in the versions after one until another."""
    feed = j.warehouse.changes("sequences", after, until).where(F.col("_change_type").isin(*publish.PUBLISHED))
    users = feed.select("user_id").distinct().persist()
    try:
        users.count()
    except Exception:
        j.log.warning("the change feed of sequences was vacuumed; all users are scored", after=after, until=until)
        return sequences
    return sequences.join(users, "user_id", how="left_semi")


def publish_history(j: Job) -> None:
    """Append to `topn_history` what `topn` has published since the last time."""
    tables = j.warehouse
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
    if tables.read("item_embeddings").where(F.col("model_version") == version).limit(1).count() == 0:
        rows = goods.embeddings(j.spark, model, items, version)
        tables.append(rows, "item_embeddings", {"job": j.name, "model_version": version})


if __name__ == "__main__":
    job.start(app)
