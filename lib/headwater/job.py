"""Code shared by all entry points in ``jobs/``: flags, session, log, closing line, exit code.

A job reads, calls the library, writes, and returns its counts. ``run`` prints the counts as one line of JSON, the last line
of standard output. Exit codes: 0 for success, 2 for a bad argument, config or input location, 1 for anything else.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

ConfigFiles = Annotated[
    list[Path] | None, typer.Option("--config", metavar="FILE", help="YAML; repeatable, later files win")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="dotted key; repeatable, wins over files")
]


GO_ON = "committed work is kept, run the job again to continue"
_interrupted = threading.Event()
"""Whether Ctrl-C was pressed. Clean-up after it may fail with other errors, because Java is gone."""


class Job:
    """One run of one job: its config, its start time, and its session and tables, which are created on first use.

    ``lasting``: the job runs in rounds until it is stopped, and its session is configured for that. ``long``: the job works on
    its rows for minutes, and its session uses the optimising compiler; set it before the session is first used.
    """

    def __init__(self, name: str, config: Config, lasting: bool = False) -> None:
        self.name = name
        self.config = config
        self.lasting = lasting
        self.long = False
        self.now = clock.now()
        self.log = structlog.get_logger(job=name)

    def sibling(self, name: str) -> Job:
        """Another job that starts now, with the same config, session and tables."""
        other = Job(name, self.config)
        other.__dict__.update(spark=self.spark, warehouse=self.warehouse)
        return other

    @cached_property
    def spark(self) -> SparkSession:
        from headwater.spark import session

        with _signals_held():
            return session(self.config, self.name, self.lasting, self.long)

    @cached_property
    def warehouse(self) -> Warehouse:
        from headwater.tables import Warehouse

        tables = self.config.tables
        return Warehouse(self.spark, self.config.paths.warehouse, tables.lock_timeout_seconds, tables.deletion_vectors)


def command_line() -> typer.Typer:
    """An empty command line whose help keeps the lines of an example as they are."""
    return typer.Typer(add_completion=False, rich_markup_mode=None)


def help_text(doc: str | None) -> str:
    """A module's docstring as help, with indented paragraphs marked so that they are not wrapped."""
    return re.sub(r"\n\n(?=    )", "\n\n\b\n", doc or "")


def run(
    name: str,
    body: Callable[[Job], dict[str, Any]],
    files: list[Path] | None,
    overrides: list[str] | None,
    lasting: bool = False,
) -> None:
    """Run one job from its flags to its closing line. On an error, exit the process with the code for that error."""
    _log_to_stderr()
    signal.signal(signal.SIGTERM, lambda *_: _fail(name, "stopped by SIGTERM; " + GO_ON, 143))
    _handle_ctrl_c()
    os.environ[GROUP] = str(os.getpgid(0))
    try:
        job = Job(name, configuration.load(files, overrides), lasting)
        counts = body(job)
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or _interrupted.is_set():
            _fail(name, "stopped by Ctrl-C; " + GO_ON, 130)
        if _java_has_died():  # whatever failed first, failed because of that
            _fail(name, "Java has ended, perhaps for lack of memory (spark.driver.memory); " + GO_ON, 1)
        if isinstance(error, HeadwaterError):
            _fail(name, str(error), error.exit_code)
        _fail(name, _explain(error), 1)
    print(json.dumps({"job": name, "status": "ok", **counts}, ensure_ascii=False, default=str), flush=True)


def start(app: typer.Typer) -> None:
    """Parse the command line and run the app. A wrong flag prints one line and exits with code 2; a HeadwaterError or OSError
    raised outside ``run`` also prints one line and exits with its own code."""
    try:
        sys.exit(app(standalone_mode=False))
    except TyperException as error:
        line = error.format_message().rstrip(".")
        _fail(Path(sys.argv[0]).stem, f"{line} (--help shows the flags)", UsageError.exit_code)
    except HeadwaterError as error:
        _fail(Path(sys.argv[0]).stem, str(error), error.exit_code)
    except OSError as error:
        _fail(Path(sys.argv[0]).stem, str(error), 1)


def _handle_ctrl_c() -> None:
    """Make Ctrl-C raise KeyboardInterrupt, and record it so that ``run`` recognises it whatever fails during clean-up."""

    def stop(*_: Any) -> NoReturn:
        _interrupted.set()
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, stop)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM take effect at the end, the second one of a kind at once: a Java that is left while it starts never
    ends. The handlers stay as they are; Spark's own for Ctrl-C first asks Java to stop, which Ctrl-C in a terminal has done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held: list[int] = []

    def hold(number: int, _: Any) -> None:
        if number in held:
            signal.signal(number, usual[signal.Signals(number)])
            signal.raise_signal(number)
        held.append(number)

    for kind in usual:
        signal.signal(kind, hold)
    try:
        yield
    finally:
        for kind, handler in usual.items():
            signal.signal(kind, handler)
        for number in held:
            signal.raise_signal(number)


def _fail(name: str, line: str, code: int) -> NoReturn:
    if os.environ.get("HEADWATER_DEBUG"):
        traceback.print_exc()
    print(f"{name}: {printable(line)}", file=sys.stderr, flush=True)
    sys.exit(code)


def _explain(error: Exception) -> str:
    """The message of an unexpected error's root cause, on one line; Spark buries it under wrappers."""
    text = str(error)
    if "No space left on device" in text:
        return "the disk is full (no space left on device); free some space; " + GO_ON
    if messages := re.findall(r"^headwater\.errors\.\w+: (.+)", text, re.MULTILINE):  # raised on a Spark worker
        return str(messages[-1])
    if raised := re.search(r"\[USER_RAISED_EXCEPTION\] (.+?) SQLSTATE", text):  # by a query of ours (F.raise_error)
        return raised[1]
    java = getattr(error, "java_exception", None)
    while java is not None and java.getCause() is not None:
        java = java.getCause()
    said = error if java is None else java.toString()
    return f"{type(error).__name__}: {first_line(said)} (HEADWATER_DEBUG=1 shows where)"


def _java_has_died() -> bool:
    if "pyspark" not in sys.modules:  # a job that failed before it needed Spark should not load it now
        return False
    from headwater.spark import java_has_died

    return java_has_died()


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
