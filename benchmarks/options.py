"""Flags that several benchmarks share, and how they start; ``--config`` and ``--set`` are those of the jobs (``headwater.job``)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from headwater import job
from headwater.errors import HeadwaterError

ATTRIBUTES = typer.Option("--attributes", help="JSON: item → list of attributes")

Attributes = Annotated[Path, ATTRIBUTES]
MaybeAttributes = Annotated[Path | None, ATTRIBUTES]
Seeds = Annotated[int, typer.Option("--seeds", help="trainings, with seeds 1, 2, …")]
Threads = Annotated[int, typer.Option("--threads", help="of this process")]


def start(main: Callable[..., None]) -> None:
    """Run a benchmark by its command line; a wrong flag, config or file is one line, as it is for a job."""
    app = typer.Typer(add_completion=False)
    app.command(help=sys.modules["__main__"].__doc__)(main)
    try:
        job.start(app)
    except (HeadwaterError, OSError) as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, HeadwaterError) else 1)
