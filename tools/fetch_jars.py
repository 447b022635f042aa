"""Put Delta's jars beside Spark's own, so that a job finds them however it is started and never resolves them again.

Spark resolves them once here, by their Maven coordinates, as `spark.jars.packages` does on a cluster.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

from headwater.spark import DELTA

JARS = Path(pyspark.__file__).parent / "jars"


def main() -> None:
    if any(JARS.glob("delta-spark_*.jar")):
        return
    print("make env: fetching Delta's jars …", file=sys.stderr)
    with tempfile.TemporaryDirectory() as cache:
        builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
        try:
            with quietly():
                builder.config("spark.jars.packages", DELTA).config("spark.jars.ivy", cache).getOrCreate().stop()
        except Exception:
            sys.exit(f"make env: Delta ({DELTA}) could not be resolved; is a Maven repository reachable?")
        for jar in Path(cache).glob("jars/io.delta_delta-*.jar"):
            shutil.copy(jar, JARS / jar.name.removeprefix("io.delta_"))


@contextmanager
def quietly() -> Iterator[None]:
    """Discard the lines that Java prints for each jar."""
    saved, devnull = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        yield
    finally:
        for descriptor, original in zip((1, 2), saved, strict=True):
            os.dup2(original, descriptor)


if __name__ == "__main__":
    main()
