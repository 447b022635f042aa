"""Show the list that the champion would make now for one history, as a table or as JSON.

    python jobs/recommend.py --history "view:A click:B purchase:C"
    python jobs/recommend.py --user 42 --json

Nothing is written. The answer names the items of the history that the catalogue or the model does not know.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import typer

from headwater import job, privacy
from headwater.config import Config
from headwater.errors import HeadwaterError, UsageError
from headwater.ingest.lines import BLANKS
from headwater.job import Job
from headwater.models.ranker import Ranker
from headwater.scoring import adhoc, executors, recent
from headwater.scoring.adhoc import Answer
from headwater.scoring.items import load_catalogue
from headwater.scoring.scorer import Scorer
from headwater.tracking import Registry
from headwater.training import artifact

app = job.command_line()


@app.command(help=job.help_text(__doc__))
def main(
    history: str = typer.Option("", help='events, oldest first: "view:A click:B purchase:C"'),
    user: str = typer.Option("", help="a user of the sequences table, by id or by pseudonym"),
    as_json: bool = typer.Option(False, "--json", help="print the answer only in the closing line"),
    n: int = typer.Option(0, min=0, help="list length; 0 means topn.n"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("recommend", lambda j: recommend(j, history, user, as_json, n), config, set_)


def recommend(j: Job, history: str, user: str, as_json: bool, n: int) -> dict[str, Any]:
    user = user.strip(BLANKS)
    if bool(history.strip()) == bool(user):
        raise UsageError('give either --history "view:A click:B" or --user ID')
    topn = j.config.topn.model_copy(update={"n": n or j.config.topn.n, "sections": ()})
    events = adhoc.parse(history) if history.strip() else []
    with ThreadPoolExecutor(max_workers=1) as background:
        loading = background.submit(champion, j.config)  # while Spark starts
        items, events_table, sequences = (j.warehouse.read(table) for table in ("items", "events", "sequences"))
        version, ranker = loading.result()
    counts = recent.count(events_table, sequences, items, j.config.topn, ranker.trained)
    catalogue = load_catalogue(items, counts, topn)
    scorer = Scorer(ranker, catalogue, topn, max_length=j.config.sequence.max_length)
    titles = items.select("item_id", "item_idx", "title").toPandas()
    if user:
        history_row = stored(j, user)
        events = adhoc.events(history_row, titles)
    else:
        history_row = adhoc.row(events, titles, counts.until)
    unknown = adhoc.unknown(events, titles, scorer.ranker.n_items)
    answer = Answer(adhoc.recommend(scorer, history_row, titles), unknown, len(history_row["item_idx"].iloc[0]) > 0)
    if not as_json:
        print(adhoc.table(answer))
    return {"model_version": version, "items": answer.items, "unknown": answer.unknown}


def champion(config: Config) -> tuple[int, Ranker]:
    """The champion's version and its ranker."""
    registry = Registry(config)
    version = registry.need_champion()
    return version, artifact.ranker(registry.download(version))


def stored(j: Job, user: str) -> pd.DataFrame:
    """A user's stored sequence, as a row for the scorer. With `privacy.key_file`, users are found by the id in their events and by
    the pseudonym in the tables. Raises HeadwaterError if there is no sequence."""
    sequences = j.warehouse.read("sequences")
    for name in privacy.ids_of(user, privacy.load_key(j.config.privacy.key_file)):
        row = executors.history_of(sequences, name)
        if not row.empty:
            return row
    raise HeadwaterError(f"user {user!r} has no sequence")


if __name__ == "__main__":
    job.start(app)
