"""Write Top-N lists with the champion, for all users or only for those whose sequence changed since the last run.

    python jobs/score_topn.py --mode full
    python jobs/score_topn.py --mode nearline

The body is in `headwater.nearline.lists`, because the warm stream runs it too; its docstring explains why a kill does no harm.
"""

from __future__ import annotations

from enum import StrEnum

import typer

from headwater import job
from headwater.nearline.lists import score

app = job.command_line()


class Mode(StrEnum):
    full = "full"
    nearline = "nearline"


@app.command(help=job.help_text(__doc__))
def main(
    mode: Mode = typer.Option(Mode.full, help="all users, or only those with changes"),
    config: job.ConfigFiles = None,
    set_: job.Overrides = None,
) -> None:
    job.run("score_topn", lambda j: score(j, mode.value), config, set_)


if __name__ == "__main__":
    job.start(app)
