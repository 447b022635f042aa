"""Runs jobs one after the other in one process, so that they share one JVM and one Spark session.

A job is started as its own program would be (``jobs/NAME.py`` with its flags); what it spares is the ten seconds in
which Java, Spark and torch get up. Twenty-six of them would be half of the demo.

    python demo/warm.py OUTPUT

Reads one JSON list ``[program, flag, …]`` a line from standard input; what the job prints goes to the file OUTPUT,
made anew each time, and its exit code, a line, to standard output.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback


def run(program: str, flags: list[str]) -> int:
    """The exit code that the program would end with."""
    sys.argv = [program, *flags]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def forget_caches() -> None:
    """What a job left in memory would go with its process."""
    if "pyspark.sql" in sys.modules and (spark := sys.modules["pyspark.sql"].SparkSession.getActiveSession()):
        spark.catalog.clearCache()


def main(output: str) -> None:
    codes = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        program, *flags = json.loads(line)
        with open(output, "w") as file:
            os.dup2(file.fileno(), 1)
        code = run(program, flags)
        sys.stdout.flush()
        sys.stderr.flush()
        forget_caches()
        print(code, file=codes, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
