"""Keep lists fresh within seconds: ingest, sequences and changed lists, round after round in one warm Spark session.

    python jobs/nearline.py --config conf/site.yaml           # until SIGTERM, which ends it after the round in hand
    python jobs/nearline.py --config conf/site.yaml --once    # takes all there is, and stops

Landing files and Kafka topics (`format: kafka`) alike. It writes what `ingest_events`, `build_sequences` and
`score_topn --mode nearline` write, under their names and locks, so it may be killed at any instant and started again, and run
beside them on a local disk. A new champion makes the lists from the next round on.
"""

from __future__ import annotations

import typer

from headwater import job
from headwater.nearline import stream

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(
    once: bool = typer.Option(False, "--once", help="take all there is, and stop"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("nearline", lambda j: stream.run(j, once), config, set_, lasting=not once)


if __name__ == "__main__":
    job.start(app)
