"""What the champion would show for one history, now: a table for people, or JSON.

    python jobs/recommend.py --history "view:A click:B purchase:C"
    python jobs/recommend.py --user 42 --json

Nothing is written. Items of the history that the catalogue or the model does not know are named.
"""

from __future__ import annotations

from typing import Any

import typer
from pyspark.sql import functions as F

from headwater import job, popularity, privacy
from headwater.errors import HeadwaterError, UsageError
from headwater.job import Job
from headwater.models.ranker import Ranker
from headwater.scoring import adhoc
from headwater.tracking import Registry

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(
    history: str = typer.Option("", help='events, oldest first: "view:A click:B purchase:C"'),
    user: str = typer.Option("", help="a user of the sequences table"),
    as_json: bool = typer.Option(False, "--json", help="the answer stands in the closing line"),
    n: int = typer.Option(0, min=0, help="list length; 0 takes topn.n"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("recommend", lambda j: recommend(j, history, user, as_json, n), config, set_)


def recommend(j: Job, history: str, user: str, as_json: bool, n: int) -> dict[str, Any]:
    if bool(history.strip()) == bool(user):
        raise UsageError('give either --history "view:A click:B" or --user ID')
    topn = j.config.topn.model_copy(update={"n": n or j.config.topn.n})
    events = adhoc.parse(history) if history.strip() else []
    registry = Registry(j.config)
    version = registry.need_champion()
    popular = popularity.of_items(j.warehouse.read("events"), j.warehouse.read("items"), topn.popular_half_life_days)
    ranker = Ranker.open(registry.download(version)).with_recency(popular)
    if user:
        events = stored_history(j, user)
    catalog = j.warehouse.read("items").select("item_id", "item_idx", "title", "available").toPandas()
    answer = adhoc.recommend(ranker, catalog, events, topn)
    if not as_json:
        print(adhoc.table(answer))
    return {"model_version": version, "items": answer.items, "unknown": answer.unknown}


def stored_history(j: Job, user: str) -> list[tuple[str, str]]:
    """The (event type, item id) pairs of a stored sequence, oldest first."""
    pseudonym = privacy.pseudonym(user, key) if (key := privacy.load_key(j.config.privacy.key_file)) else user
    row = j.warehouse.read("sequences").where(F.col("user_id") == pseudonym).first()
    if row is None:
        raise HeadwaterError(f"user {user!r} has no sequence")
    items = j.warehouse.read("items").where(F.col("item_idx").isin(list(set(row["item_idx"]))))
    names = {item["item_idx"]: item["item_id"] for item in items.collect()}
    return [(kind, names[idx]) for kind, idx in zip(row["event_type"], row["item_idx"], strict=True)]


if __name__ == "__main__":
    job.start(app)
