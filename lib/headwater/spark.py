"""The Spark session: UTC, Delta, and settings that every job relies on. A master that the user has set is left alone.

Delta comes from the class path if it is there (``make env`` puts it beside Spark's own jars, clusters ship it,
``spark-submit --packages`` adds it); otherwise a plain ``python jobs/NAME.py`` resolves it by its Maven coordinates. The same
holds for Kafka's connector if a source is a topic.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from subprocess import TimeoutExpired

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.sql import SparkSession

from headwater import local
from headwater.config import Config
from headwater.errors import HeadwaterError
from headwater.text import first_line

DELTA = "io.delta:delta-spark_2.13:4.0.1"
KAFKA = "org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.0"
"""Kafka's connector, needed only if ``ingest.sources`` has a topic; it has no release 4.0.1."""

JAVA_ENDS_WITHIN = 10.0
"""Seconds from a lost connection to the end of the Java process, at most; a killed one with much memory takes long to free it."""

NEARLY_UNIQUE_COLUMNS = ("event_id", "event_id.list.element", "event_time", "event_time.list.element", "score")
"""Columns, of tables and of arrays in them, for which Parquet would start a dictionary, find it useless and encode the values
again: a fifth of the cost of writing `sequences`."""
LONG_DICTIONARY_COLUMNS = ("user_id", "item_id")
"""Columns with long dictionaries: they make files of events a seventh smaller, but make `topn` slow to write and read."""


def _without_dictionaries(columns: tuple[str, ...]) -> dict[str, str]:
    return {f"spark.hadoop.parquet.enable.dictionary#{column}": "false" for column in columns}


SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # records the Python call site of a column, for each of the three hundred columns that a round creates
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    # a round of the stream runs more than a hundred generated classes; the default keeps 100, so each was compiled again
    "spark.sql.codegen.cache.maxEntries": "5000",
    # cached frames are read a few times and then freed; choosing a compression for them took a fifth of ingest
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
    # upper and lower case by Java; the ICU library first spends a second building tables for all of Unicode
    "spark.sql.icu.caseMappings.enabled": "false",
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "256",
    "spark.databricks.delta.snapshotPartitions": "2",
    **_without_dictionaries(NEARLY_UNIQUE_COLUMNS),
    "spark.databricks.delta.schema.autoMerge.enabled": "false",
    # a commit with a change feed writes to two folders; with one open file in each, its rows need no sort by folder
    "spark.sql.maxConcurrentOutputFileWriters": "8",
    # a commit without rows still carries a note; by default Delta skips such a commit, and the note would be lost
    "spark.databricks.delta.skipRecordingEmptyCommits": "false",
}
LOCAL = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": str(2 * local.cores()),
    # VACUUM lists folders in this many tasks; the default of 10,000 takes a minute per table on two cores
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(2 * local.cores()),
    "spark.driver.memory": "2g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:-DontCompileHugeMethods -XX:ReservedCodeCacheSize=240m"
"""Java options of a short local session: the optimising compiler would use half of its CPU time and never earn it back.

Spark generates one method for reading lines, longer than Java compiles by default. Without the optimising compiler Java's
default code cache is so small that a long session fills it, hence the explicit size. These options come before
``spark.driver.extraJavaOptions``, where ``-XX:TieredStopAtLevel=4`` turns the optimising compiler on again.
"""
STACK = "-Xss16m"
"""The stack of each thread. Java matches a repeated group by recursion: a url rule such as ``/(?:\\w+/)+`` overflows the default
of 1 MiB at a request of 3,000 characters, and that ends the process. Memory is used only where a stack grows.
"""
LASTING = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": str(local.cores()),
    "spark.sql.leafNodeDefaultParallelism": "1",
    "spark.sql.files.minPartitionNum": str(local.cores()),
    "spark.databricks.delta.snapshotPartitions": "1",
    # a round's appends are small and packed later; the tables that it rewrites are `topn` and `sequences`
    **_without_dictionaries(LONG_DICTIONARY_COLUMNS),
}
"""Settings added to ``LOCAL`` for a session with many small, similar rounds. Adaptive execution plans each query again between
its stages and generates new code each time, which took more than half of a round's CPU. A task costs mostly its start, so
few rows, or a table's log, are one task, while all cores read the files of a table."""
LOG4J = "log4j2.configurationFile"
CLASS_ARCHIVE = "headwater-classes.jsa"
"""An archive of the classes that jobs load, beside Spark's jars (``tools/archive_classes.py``); used if it exists."""


def session(config: Config, name: str, lasting: bool = False, long: bool = False) -> SparkSession:
    """The active session, or a new one named ``headwater:<name>``; without a given master it uses all local cores.

    ``lasting``: the session runs rounds for hours, and a local one is configured for that. ``long``: work on rows takes longer
    than the start.

    Raises HeadwaterError if Java is missing or Delta is not on the class path of a running JVM.
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
    _quiet_py4j()
    for key, value in config.spark.items():
        builder = builder.config(key, value)
    try:
        spark = builder.getOrCreate()
    except Exception as error:
        network = (
            f", and is a Maven repository reachable for {', '.join(_packages(config))}" if _packages(config) else ""
        )
        raise HeadwaterError(f"Spark did not start ({first_line(error)}); is Java 17 installed{network}?") from error
    # A failed task is reported once, in the job's own line; HEADWATER_DEBUG=1 also shows Spark's own messages.
    spark.sparkContext.setLogLevel("ERROR" if os.environ.get("HEADWATER_DEBUG") else "OFF")
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    try:
        spark._jvm.java.lang.Class.forName("io.delta.sql.DeltaSparkSessionExtension")  # type: ignore[union-attr]
    except Exception:
        raise HeadwaterError(f"Delta Lake is not on Spark's class path: spark-submit --packages {DELTA} …") from None
    return spark


def java_has_died() -> bool:
    """Whether the Java process that this process started has ended, or is about to: its sockets close first, so it is asked
    something, and if it does not answer, its end is waited for."""
    gateway = SparkContext._gateway
    started = getattr(gateway, "proc", None)
    if gateway is None or started is None:
        return False
    try:
        gateway.jvm.java.lang.System.nanoTime()
    except (Py4JError, OSError):
        with suppress(TimeoutExpired):
            started.wait(JAVA_ENDS_WITHIN)
    return started.poll() is not None


def spark_home() -> Path:
    """The folder that holds Spark's ``jars``: ``SPARK_HOME``, or pyspark's own folder."""
    spec = find_spec("pyspark")
    return Path(os.environ.get("SPARK_HOME") or Path(spec.origin).parent)  # type: ignore[union-attr, arg-type]


def _packages(config: Config) -> list[str]:
    """The Maven coordinates that a session started here must resolve."""
    wanted = {DELTA: "delta-spark_*.jar"}
    if any(source.format == "kafka" for source in config.ingest.sources):
        wanted[KAFKA] = "spark-sql-kafka-0-10_*.jar"
    return [package for package, jar in wanted.items() if not any((spark_home() / "jars").glob(jar))]


def java_options(optimised: bool = False) -> str:
    """Java options of a local session: the stack, the compilers, and the class archive if it exists.

    The optimising compiler saves two thirds of the time to write ten million rows and, after a dozen rounds, a third of each
    round.
    """
    options = ["-XX:+UseSerialGC", STACK] if optimised else ["-XX:+UseSerialGC", STACK, QUICK_START]
    archive = spark_home() / CLASS_ARCHIVE
    if archive.exists():
        options += [f'-XX:SharedArchiveFile="{archive}"', "-Xlog:disable"]
    return " ".join(options)


def _quiet_py4j() -> None:
    """Keep its stack traces off the terminal, also those that it logs by the root logger: it raises the same errors, and after
    the end of Java there is one for each call."""
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_is_not_py4j)


def _is_not_py4j(record: logging.LogRecord) -> bool:
    return "py4j" not in Path(record.pathname).parts


def _quiet_log4j() -> None:
    """Keep Spark's start-up notices off the terminal, which a person reads."""
    quiet, own = Path(__file__).resolve().parent / "log4j2.properties", os.environ.get("SPARK_SUBMIT_OPTS", "")
    if quiet.exists() and LOG4J not in own + os.environ.get("JDK_JAVA_OPTIONS", ""):
        os.environ["SPARK_SUBMIT_OPTS"] = f"{own} -D{LOG4J}={quiet.as_uri()}".strip()
