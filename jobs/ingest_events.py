"""Ingest new landing files and new messages of Kafka topics into `events`, `quarantine` and `items`.

    python jobs/ingest_events.py --config conf/site.yaml

Each file or message is ingested exactly once. Every line is counted as an event, as quarantined with a reason, as a duplicate,
or as a request that no rule calls an action; the counts in the closing line add up. A file that does not fit its source is left
alone, and the job fails after all others have been ingested. The body is in `headwater.nearline.events`, because the warm stream
runs it too; its docstring explains why a kill does no harm.
"""

from __future__ import annotations

from headwater import job
from headwater.nearline.events import ingest

app = job.command_line()


@app.command(help=job.help_text(__doc__))
def main(config: job.ConfigFiles = None, set_: job.Overrides = None) -> None:
    job.run("ingest_events", ingest, config, set_)


if __name__ == "__main__":
    job.start(app)
