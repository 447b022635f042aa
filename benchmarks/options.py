"""Flags that several benchmarks share; ``--config`` and ``--set`` are those of the jobs (``headwater.job``)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ATTRIBUTES = typer.Option("--attributes", help="JSON: item → list of attributes")

Attributes = Annotated[Path, ATTRIBUTES]
MaybeAttributes = Annotated[Path | None, ATTRIBUTES]
Seeds = Annotated[int, typer.Option("--seeds", help="trainings, with seeds 1, 2, …")]
Threads = Annotated[int, typer.Option("--threads", help="of this process")]
