"""Write every user's Top-N with the champion: all users, or only those whose sequence changed since the last run.

    python jobs/score_topn.py --mode full
    python jobs/score_topn.py --mode nearline

The lists are replaced in one commit; what was published is then taken from that commit's change feed into
`topn_history`, so that a run that is killed in between is completed by the next one.
"""

from __future__ import annotations

import tempfile
from enum import StrEnum
from pathlib import Path

import typer
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headwater import job, popularity
from headwater.errors import HeadwaterError
from headwater.job import Job
from headwater.scoring import catalog, lists, publish
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
    with tables.locked("topn", "topn_history", "item_embeddings"), tempfile.TemporaryDirectory() as scratch:
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
        bundle = lists.ship(j.spark, model, catalog.available(items), popular, Path(scratch))
        rules = lists.Rules(topn.n, topn.exclude_seen, topn.batch_users)
        scored = lists.with_titles(lists.recommend(wanted, bundle, rules), items)
        rows = publish.topn_rows(scored, wanted, version, j.now).persist()
        if bad := publish.unfit(rows).count():
            raise HeadwaterError(f"{bad} of the new lists are not fit to publish; topn stays as it was")
        standing = tables.read("topn")
        counts["users_changed"] = publish.changed_users(rows, standing).count()
        write_embeddings(j, version, model, items)
        failpoint("score_topn:before_topn")
        note = {"job": j.name, "mode": mode, "sequences_version": sequences_version, "model_version": version}
        if last is not None:
            withdrawn = publish.with_withdrawn(rows, standing)
            live = "new.item_id IS NOT NULL"
            tables.merge(withdrawn, "topn", note, delete_when=f"NOT ({live})", insert_when=live)
        else:
            tables.overwrite(rows, "topn", note)
        failpoint("score_topn:after_topn")
        publish_history(j)
        return counts


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
        rows = catalog.embeddings(j.spark, model, items, version)
        tables.append(rows, "item_embeddings", {"job": j.name, "model_version": version})


if __name__ == "__main__":
    job.start(app)
