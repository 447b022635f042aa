"""The Spark session: UTC, Delta, and settings that every job relies on. Nothing here sets a master that the user set.

Delta comes from the class path where it is there already (``make env`` puts it beside Spark's own jars, clusters ship
it, ``spark-submit --packages`` adds it); a plain ``python jobs/NAME.py`` without it resolves it by Maven coordinates.
So it does with Kafka's connector, where a source is a topic.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from pyspark.sql import SparkSession

from headwater import local
from headwater.config import Config
from headwater.errors import HeadwaterError
from headwater.text import first_line

DELTA = "io.delta:delta-spark_2.13:4.0.1"
KAFKA = "org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.0"
"""Kafka's connector, wanted only where a source of ``ingest.sources`` is a topic; there is none of 4.0.1."""

HARDLY_REPEATED = ("event_id", "event_id.list.element", "event_time", "event_time.list.element", "score")
"""Columns, of tables and of their arrays, for which Parquet would begin a dictionary, find it useless and write them anew: a
fifth of what it costs to write `sequences`."""
SELDOM_REPEATED = ("user_id", "item_id")
"""Columns whose dictionaries are long: they make files of events a seventh smaller, and `topn` dear to write and to read."""


def _without_dictionaries(columns: tuple[str, ...]) -> dict[str, str]:
    return {f"spark.hadoop.parquet.enable.dictionary#{column}": "false" for column in columns}


SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # where in Python a column was made, noted for each of the three hundred of a round
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    # a round of the stream runs some hundred generated classes; the default keeps 100, so each was compiled anew
    "spark.sql.codegen.cache.maxEntries": "5000",
    # what is cached is read a few times and let go; to find what compresses it took a fifth of ingest
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
    # upper and lower case by Java, not by a library that makes tables of all of Unicode for a second first
    "spark.sql.icu.caseMappings.enabled": "false",
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "256",
    "spark.databricks.delta.snapshotPartitions": "2",
    **_without_dictionaries(HARDLY_REPEATED),
    "spark.databricks.delta.schema.autoMerge.enabled": "false",
    # a commit with a change feed writes two folders; with a file open in each its rows need not be sorted by folder
    "spark.sql.maxConcurrentOutputFileWriters": "8",
    # a commit without rows carries a note all the same; Delta would leave it out, and the note would be lost
    "spark.databricks.delta.skipRecordingEmptyCommits": "false",
}
LOCAL = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": str(2 * local.cores()),
    # VACUUM lists folders in this many tasks; the default of 10,000 takes a minute a table on two cores
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(2 * local.cores()),
    "spark.driver.memory": "2g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:-DontCompileHugeMethods -XX:ReservedCodeCacheSize=240m"
"""Java options of a short local session: the optimising compiler takes half of its CPU and never earns it back.

What Spark makes of the reading of lines is one method, longer than Java would compile unasked. Alone, the other compiler
would get a code cache that a long session fills, hence its size. These come before
``spark.driver.extraJavaOptions``, where ``-XX:TieredStopAtLevel=4`` brings it back.
"""
LASTING = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": str(local.cores()),
    "spark.sql.leafNodeDefaultParallelism": "1",
    "spark.sql.files.minPartitionNum": str(local.cores()),
    "spark.databricks.delta.snapshotPartitions": "1",
    # what a round appends is small and packed later; what it rewrites is `topn` and `sequences` as a whole
    **_without_dictionaries(SELDOM_REPEATED),
}
"""What a session has beside ``LOCAL`` whose rounds are small, alike and many. Planning each query anew between its stages
(adaptive execution) makes other code of it each time, and cost more than half of a round's CPU; and most of a task is its
start, so that few rows and a table's log are one task, while the files of a table are read by all cores."""
LOG4J = "log4j2.configurationFile"
CLASS_ARCHIVE = "headwater-classes.jsa"
"""The classes that jobs load, in one file beside Spark's jars (``tools/archive_classes.py``); used where it is there."""


def session(config: Config, name: str, lasting: bool = False, long: bool = False) -> SparkSession:
    """The active or a new session named ``headwater:<name>``; on no given master, all local cores.

    ``lasting``: it goes round for hours, and a local one is set up for that; ``long``: its rows take longer than its start.

    Raises HeadwaterError where Java is missing or Delta is not on the class path of a running JVM.
    """
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.appName(f"headwater:{name}")
    for key, value in SETTINGS.items():
        builder = builder.config(key, value)
    if not submitted:
        builder = builder.master(os.environ.get("MASTER", "local[*]"))
        own = {**LOCAL, **LASTING} if lasting else LOCAL
        for key, value in {**own, "spark.driver.defaultJavaOptions": java_options(lasting or long)}.items():
            builder = builder.config(key, value)
        if packages := _packages(config):
            builder = builder.config("spark.jars.packages", ",".join(packages))
        _quiet_log4j()
    for key, value in config.spark.items():
        builder = builder.config(key, value)
    try:
        spark = builder.getOrCreate()
    except Exception as error:
        asked = f", and a Maven repository in reach for {', '.join(_packages(config))}" if _packages(config) else ""
        raise HeadwaterError(f"Spark does not start ({first_line(error)}); is Java 17 installed{asked}?") from error
    # A failed task is told once, in the job's own line; HEADWATER_DEBUG=1 shows Spark's account of it too.
    spark.sparkContext.setLogLevel("ERROR" if os.environ.get("HEADWATER_DEBUG") else "OFF")
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    try:
        spark._jvm.java.lang.Class.forName("io.delta.sql.DeltaSparkSessionExtension")  # type: ignore[union-attr]
    except Exception:
        raise HeadwaterError(f"Delta Lake is not on Spark's class path: spark-submit --packages {DELTA} …") from None
    return spark


def spark_home() -> Path:
    """Where Spark's ``jars`` folder is: ``SPARK_HOME``, or inside pyspark."""
    spec = find_spec("pyspark")
    return Path(os.environ.get("SPARK_HOME") or Path(spec.origin).parent)  # type: ignore[union-attr, arg-type]


def _packages(config: Config) -> list[str]:
    """The Maven coordinates that a session of its own has to resolve."""
    wanted = {DELTA: "delta-spark_*.jar"}
    if any(source.format == "kafka" for source in config.ingest.sources):
        wanted[KAFKA] = "spark-sql-kafka-0-10_*.jar"
    return [package for package, jar in wanted.items() if not any((spark_home() / "jars").glob(jar))]


def java_options(optimised: bool = False) -> str:
    """Java options of a local session: which compilers it has, and the archive of classes where it is there.

    The optimising one saves two thirds of writing ten million rows, and after a dozen rounds a third of each.
    """
    options = ["-XX:+UseSerialGC"] if optimised else ["-XX:+UseSerialGC", QUICK_START]
    archive = spark_home() / CLASS_ARCHIVE
    if archive.exists():
        options += [f'-XX:SharedArchiveFile="{archive}"', "-Xlog:disable"]
    return " ".join(options)


def _quiet_log4j() -> None:
    """Keep Spark's start-up notices off the terminal: a person reads it."""
    quiet, own = Path(__file__).resolve().parent / "log4j2.properties", os.environ.get("SPARK_SUBMIT_OPTS", "")
    if quiet.exists() and LOG4J not in own + os.environ.get("JDK_JAVA_OPTIONS", ""):
        os.environ["SPARK_SUBMIT_OPTS"] = f"{own} -D{LOG4J}={quiet.as_uri()}".strip()
