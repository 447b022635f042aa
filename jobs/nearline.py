"""Keep lists fresh within seconds: ingest, sequences and changed lists, round after round in one warm Spark session.

    python jobs/nearline.py --config conf/site.yaml           # until SIGTERM, which ends it after the current round
    python jobs/nearline.py --config conf/site.yaml --once    # takes everything available, then stops

Reads landing files and Kafka topics (`format: kafka`). It writes the same tables as `ingest_events`, `build_sequences` and
`score_topn --mode nearline`, under their names and locks. It may therefore be killed at any instant and started again, and on
a local disk it may run beside those jobs. A new champion makes the lists from the next round on.
"""

from __future__ import annotations

import typer

from headwater import job
from headwater.nearline import stream

app = job.command_line()


@app.command(help=job.help_text(__doc__))
def main(
    once: bool = typer.Option(False, "--once", help="take everything available, then stop"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("nearline", lambda j: stream.run(j, once), config, set_, lasting=not once)


if __name__ == "__main__":
    job.start(app)
