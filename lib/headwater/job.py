"""What every entry point in ``jobs/`` shares: flags, session, log, closing line, exit code.

A job reads, calls the library, writes, and returns its counts; ``run`` prints them as one JSON line, the last on
standard output. Exit codes: 0 success, 2 a bad argument, config or input location, 1 anything else.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import structlog
import typer
from typer.exceptions import TyperException

from headwater import clock
from headwater import config as configuration
from headwater.config import Config
from headwater.errors import HeadwaterError, UsageError
from headwater.tables.failpoints import GROUP
from headwater.text import first_line, printable

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from headwater.tables import Warehouse

ConfigFiles = Annotated[list[Path] | None, typer.Option("--config", help="YAML file; repeatable, later files win")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="dotted.key=value; repeatable, wins over files")]


_interrupted = threading.Event()
"""Whether Ctrl-C came; what is cleaned up after it may fail in its own way, without Java."""


class Job:
    """One run of one job: its config, its moment, and, when first asked for, its session and tables.

    ``lasting``: it goes round until it is told to stop, and its session is set up for that. ``long``, to be said before the
    session is asked for: so is what takes minutes of rows.
    """

    def __init__(self, name: str, config: Config, lasting: bool = False) -> None:
        self.name = name
        self.config = config
        self.lasting = lasting
        self.long = False
        self.now = clock.now()
        self.log = structlog.get_logger(job=name)

    def beside(self, name: str) -> Job:
        """Another job at the present moment, of the same config, in the same session and with the same tables."""
        other = Job(name, self.config)
        other.__dict__.update(spark=self.spark, warehouse=self.warehouse)
        return other

    @cached_property
    def spark(self) -> SparkSession:
        from headwater.spark import session

        made = session(self.config, self.name, self.lasting, self.long)
        _mind_ctrl_c()  # Spark asks Java to stop first, which Ctrl-C in a terminal has stopped already
        return made

    @cached_property
    def warehouse(self) -> Warehouse:
        from headwater.tables import Warehouse

        tables = self.config.tables
        return Warehouse(self.spark, self.config.paths.warehouse, tables.lock_timeout_seconds, tables.deletion_vectors)


def run(
    name: str,
    body: Callable[[Job], dict[str, Any]],
    files: list[Path] | None,
    overrides: list[str] | None,
    lasting: bool = False,
) -> None:
    """Run one job from its flags to its closing line, and leave the process with the contract's exit code."""
    _log_to_stderr()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _mind_ctrl_c()
    os.environ[GROUP] = str(os.getpgid(0))
    try:
        job = Job(name, configuration.load(files, overrides), lasting)
        counts = body(job)
    except HeadwaterError as error:
        _fail(name, str(error), error.exit_code)
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or _interrupted.is_set():
            _fail(name, "stopped by Ctrl-C; what was committed stays, run it again to go on", 130)
        _fail(name, _explain(error), 1)
    print(json.dumps({"job": name, "status": "ok", **counts}, ensure_ascii=False, default=str), flush=True)


def start(app: typer.Typer) -> None:
    """Parse the command line; a wrong flag is one line and exit code 2, a HeadwaterError or OSError outside ``run`` is one
    line too, with its own code."""
    try:
        sys.exit(app(standalone_mode=False))
    except TyperException as error:
        line = error.format_message().rstrip(".")
        _fail(Path(sys.argv[0]).stem, f"{line} (--help shows the flags)", UsageError.exit_code)
    except HeadwaterError as error:
        _fail(Path(sys.argv[0]).stem, str(error), error.exit_code)
    except OSError as error:
        _fail(Path(sys.argv[0]).stem, str(error), 1)


def _mind_ctrl_c() -> None:
    """Let Ctrl-C be a KeyboardInterrupt, and known as such by ``run`` whatever fails on the way out."""

    def stop(*_: Any) -> NoReturn:
        _interrupted.set()
        logging.disable()  # py4j logs a trace of each call to a Java that is gone
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, stop)


def _fail(name: str, line: str, code: int) -> NoReturn:
    if os.environ.get("HEADWATER_DEBUG"):
        traceback.print_exc()
    print(f"{name}: {printable(line)}", file=sys.stderr, flush=True)
    sys.exit(code)


def _explain(error: Exception) -> str:
    """The deepest message that an unforeseen error carries, on one line; Spark buries it under wrappers."""
    text = str(error)
    if "No space left on device" in text:
        return "the disk is full (no space left on device); free some and run the job again, tables are as they were"
    if told := re.findall(r"^headwater\.errors\.\w+: (.+)", text, re.MULTILINE):  # raised on a worker of Spark
        return str(told[-1])
    java = getattr(error, "java_exception", None)
    while java is not None and java.getCause() is not None:
        java = java.getCause()
    said = error if java is None else java.toString()
    return f"{type(error).__name__}: {first_line(said)} (HEADWATER_DEBUG=1 shows where)"


def _log_to_stderr() -> None:
    person = sys.stderr.isatty()
    render: Any = structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer(ensure_ascii=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            render,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
