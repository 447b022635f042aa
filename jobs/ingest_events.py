"""Take the new landing files, and new messages of Kafka topics, into `events`, `quarantine` and `items`.

    python jobs/ingest_events.py --config conf/site.yaml

A file or message is taken once, ever. Every line ends in `events`, in `quarantine` with a reason, as a duplicate, or as
a request that no rule calls an action, and the closing line adds up. The body, and why a kill does no harm, stand in
`headwater.nearline.events`: the warm stream runs it too.
"""

from __future__ import annotations

import typer

from headwater import job
from headwater.nearline.events import ingest

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(config: job.ConfigFiles = None, set_: job.Overrides = None) -> None:
    job.run("ingest_events", ingest, config, set_)


if __name__ == "__main__":
    job.start(app)
