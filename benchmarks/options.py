"""Flags and start-up code shared by benchmarks; ``--config`` and ``--set`` are those of the jobs (``headwater.job``)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from headwater import job

ATTRIBUTES = typer.Option("--attributes", help="JSON: item → list of attributes")

Attributes = Annotated[Path, ATTRIBUTES]
MaybeAttributes = Annotated[Path | None, ATTRIBUTES]
Seeds = Annotated[int, typer.Option("--seeds", help="number of trainings, with seeds 1, 2, …")]
Threads = Annotated[int, typer.Option("--threads", help="threads of this process")]
Columns = Annotated[str, typer.Option("--columns", help="columns of the file for user,item,time[,value]")]
Separator = Annotated[str, typer.Option("--separator")]
Where = Annotated[str, typer.Option("--where", help="which rows to use, a pandas expression")]


def start(main: Callable[..., None]) -> None:
    """Run a benchmark from its command line like a job (``job.start``); the docstring of its file is its help text."""
    app = typer.Typer(add_completion=False)
    app.command(help=sys.modules["__main__"].__doc__)(main)
    job.start(app)
