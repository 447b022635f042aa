"""Archive the Java classes that jobs load, so that a job's JVM maps one file instead of opening hundreds of jars.

A few lines go through ingest and sequences, and the JVM archives the classes it loaded (class data sharing). The archive is
stored beside Spark's jars and is valid for this Java and these jars only; the JVM ignores an archive that does not match.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from pathlib import Path

import structlog
from pyspark.sql import functions as F

from headwater.config import Config
from headwater.job import Job
from headwater.nearline import events, sequences
from headwater.spark import CLASS_ARCHIVE, spark_home

CATALOGUE = "item_id,title,price\nA,Amber,1.5\nB,Birch,2\n"
VIEWS = [
    {"user_id": "u", "item_id": item, "event_type": "view", "timestamp": f"2026-01-01T00:0{minute}:00Z"}
    for minute, item in enumerate("ABAB")
]


def main() -> None:
    archive = spark_home() / CLASS_ARCHIVE
    newest = max(jar.stat().st_mtime for jar in (spark_home() / "jars").glob("*.jar"))
    if archive.exists() and archive.stat().st_mtime > newest:
        return
    print("make env: archiving Java classes, which takes a minute …", file=sys.stderr)
    archive.unlink(missing_ok=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    dump = {"spark.driver.extraJavaOptions": f'-XX:ArchiveClassesAtExit="{archive}" -Xlog:disable'}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        paths = {"landing": f"{folder}/landing", "warehouse": f"{folder}/warehouse"}
        run_jobs(Config(paths=paths, spark=dump), Path(folder, "landing"))


def run_jobs(config: Config, landing: Path) -> None:
    """Run two nights of a shop with two items, which loads most of the classes that any job loads."""
    job = Job("archive_classes", config)
    for folder in ("api", "catalog"):
        (landing / folder).mkdir(parents=True)
    (landing / "catalog/goods.csv").write_text(CATALOGUE)
    for night in range(2):
        lines = [json.dumps({**event, "user_id": f"user {night}"}) for event in VIEWS]
        (landing / f"api/{night}.json").write_text("\n".join(lines))
        events.ingest(job)
        sequences.build(job)
    feed = job.warehouse.changes("sequences", 0, job.warehouse.version("sequences"))
    feed.orderBy(F.desc("user_id")).toPandas()
    gateway = job.spark.sparkContext._gateway
    job.spark.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()  # the JVM ends, and writes the archive on exit
    gateway.proc.wait()


if __name__ == "__main__":
    main()
