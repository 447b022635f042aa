"""Update every user's sequence with the events added since the last run.

    python jobs/build_sequences.py --config conf/site.yaml

Incremental: only users with new events are touched. The body is in `headwater.nearline.sequences`, because the warm stream
runs it too.
"""

from __future__ import annotations

from headwater import job
from headwater.nearline.sequences import build

app = job.command_line()


@app.command(help=job.help_text(__doc__))
def main(config: job.ConfigFiles = None, set_: job.Overrides = None) -> None:
    job.run("build_sequences", build, config, set_)


if __name__ == "__main__":
    job.start(app)
