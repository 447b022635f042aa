"""Run jobs one after the other in one process, so that they share one JVM and one Spark session.

Each job runs as its own program would (``jobs/NAME.py`` with its flags), but without the ten seconds in which Java, Spark and
torch start. For twenty-six jobs that would be half of the demo's time.

    python demo/warm.py OUTPUT

Reads one JSON list ``[program, flag, …]`` per line from standard input. The job's output goes to the file OUTPUT, which is
overwritten each time, and its exit code goes to standard output, one per line.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback


def run(program: str, flags: list[str]) -> int:
    """Run a program and return the exit code that it would end with."""
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
    """Clear Spark's cache, which would end with the process of a job."""
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
