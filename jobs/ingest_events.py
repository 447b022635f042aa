"""Take the new landing files into `events`, `quarantine` and `items`.

    python jobs/ingest_events.py --config conf/site.yaml

A file is taken once, ever; `ingest_files` lists them by batch. Every line ends in `events`, in `quarantine` with a
reason, as a duplicate, or as a request that no rule calls an action, and the closing line adds up. A batch is
planned in `ingest_files`, and done with its commit to `events`; a run that was killed between is done again first.
"""

from __future__ import annotations

from headwater import job
from headwater.ingest.batch import ingest

import typer

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(config: job.ConfigFiles = None, set_: job.Overrides = None) -> None:
    job.run("ingest_events", ingest, config, set_)


if __name__ == "__main__":
    job.start(app)
