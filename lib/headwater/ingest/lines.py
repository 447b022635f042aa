"""Files as lines of text, before any parser sees them. A line that no parser should see gets its reason here.

Length is checked first, so that no pattern runs over a line of megabytes. A line is the text between line feeds, or the
value of one message.
"""

from __future__ import annotations

import re

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

RAW_CHARACTERS = 10_000
"""The number of characters of a line that ``quarantine`` keeps."""
BLANKS = " \t\r\n\u00a0"
"""Characters stripped from both ends of every value."""
NULL_WORDS = ("null", "NULL", "undefined", "None", "NaN", "nan")
"""Text that programming languages write for a missing value. As an id it would make one person, item or event of many."""
QUOTED = '(?:[^"]|"")*+'
"""A Java pattern for the text between the quotes of a field; it is possessive, so it neither recurses nor backtracks."""
TOPIC_PREFIX = "kafka://"
"""The prefix of a partition's name; no path of a file below a folder begins with it."""


def of_files(spark: SparkSession, uris: list[str], salvage: bool = False) -> DataFrame:
    """The lines of some files, with Spark's column ``_metadata``. With ``salvage``, a damaged file yields its lines up to the
    damage."""
    exact = [re.sub(r"([\\\[\]{}*?])", r"\\\1", uri) for uri in uris]  # Spark takes a path for a glob
    return spark.read.option("lineSep", "\n").option("ignoreCorruptFiles", str(salvage).lower()).text(exact)


def read(spark: SparkSession, root: str, uris: list[str], salvage: bool = False) -> DataFrame:
    """The lines of some files: ``value`` (unchanged bytes), ``source_file`` (path below ``root``) and ``position``.

    ``position`` orders the lines of one file. ``salvage``: see ``of_files``.
    """
    path = F.col("_metadata.file_path")
    # file_path is a URI; url_decode reads + as a space, which a URI's path does not
    path = F.regexp_replace(F.url_decode(F.replace(path, F.lit("+"), F.lit("%2B"))), "^file:/+", "/")
    prefix = root.rstrip("/") + "/"
    block, line = F.col("_metadata.file_block_start").alias("block"), F.monotonically_increasing_id().alias("line")
    return of_files(spark, uris, salvage).select(
        "value",
        F.substring(path, len(prefix) + 1, 1 << 30).alias("source_file"),
        F.struct(block, line).alias("position"),
    )


def _csv(text: Column, delimiter: str, pattern: str) -> Column:
    """Whether a line contains a quote and matches a pattern, in which FIELD, QUOTED and MARK stand for parts of CSV."""
    mark = re.escape(delimiter)
    field = f'(?:[^"{mark}][^{mark}]*+|"{QUOTED}"|)'
    pattern = pattern.replace("FIELD", field).replace("QUOTED", QUOTED).replace("MARK", mark)
    return F.contains(text, F.lit('"')) & F.rlike(text, F.lit(f"(?s)\\A{pattern}\\z"))


def opens(text: Column, delimiter: str) -> Column:
    """Whether a line of CSV ends inside a quoted field that it opened."""
    return _csv(text, delimiter, '(?:FIELDMARK)*+"QUOTED')


def closes(text: Column, delimiter: str) -> Column:
    """Whether a line of CSV begins like the rest of a quoted field that an earlier line opened.

    An unquoted field that ends with an inch mark looks the same.
    """
    return _csv(text, delimiter, 'QUOTED"(?:MARK.*)?')


def is_part(text: Column, delimiter: str) -> Column:
    """Whether a line of CSV is not a complete row: a quote is missing or misplaced."""
    is_complete = ~F.contains(text, F.lit('"')) | _csv(text, delimiter, "(?:FIELDMARK)*+FIELD")
    quotes = F.length(text) - F.length(F.replace(text, F.lit('"'), F.lit("")))
    return ~is_complete | (closes(text, delimiter) & (quotes % 2 == 1))


def joined(frame: DataFrame, delimiter: str, max_bytes: int) -> DataFrame:
    """Lines as ``read`` returns them; lines that share a quoted CSV field are joined, at the position of the first.

    If a field does not end, or not within ``max_bytes``, its lines are left separate and unchanged.
    """
    bare = F.when(F.octet_length("value") <= max_bytes, F.rtrim("value", F.lit("\r")))
    in_order = Window.partitionBy("source_file").orderBy("position")
    begins, ends = opens(bare, delimiter), closes(bare, delimiter) & is_part(bare, delimiter)
    one = F.when(begins != ends, 1).otherwise(0)  # if both are true, one field ends and another begins
    counted = frame.withColumn("one", one).withColumn("turns", F.sum("one").over(in_order))
    first = F.when((F.col("turns") - F.col("one")) % 2 == 0, 1).otherwise(0)
    numbered = counted.withColumn("row", F.sum(first).over(in_order))
    lines = F.sort_array(F.collect_list(F.struct("position", "value")))
    rows = numbered.groupBy("source_file", "row").agg(lines.alias("lines"))
    last = F.rtrim(F.element_at("lines.value", -1), F.lit("\r"))
    text = F.array_join("lines.value", "\n")
    is_one_row = F.when((F.size("lines") > 1) & (F.octet_length(text) <= max_bytes), closes(last, delimiter))
    joined_line = F.array(F.struct(F.element_at("lines.position", 1).alias("position"), text.alias("value")))
    line = F.explode(F.when(is_one_row, joined_line).otherwise(F.col("lines"))).alias("line")
    return rows.select("source_file", line).select("line.value", "source_file", "line.position")


def with_text(frame: DataFrame, max_line_bytes: int, header: str | None = None) -> DataFrame:
    """Adds ``raw`` (for people), ``reason`` and ``line``: the text without BOM and CR, null if there is a reason.

    Lines equal to ``header`` get the reason ``header``; a later step decides which of them is the file's own header.
    """
    value = F.col("value")
    bare = _bare(value)
    reason: Column = F.when(value.isNull(), "tombstone")
    reason = reason.when(F.octet_length(value) > max_line_bytes, "line_too_long")
    reason = reason.when(~F.is_valid_utf8(value), "not_utf8")
    reason = reason.when(F.contains(value, F.lit("\0")), "nul_byte")
    reason = reason.when(is_blank(value), "empty_line")
    if header is not None:
        reason = reason.when(bare == header, "header")
    valid = F.make_valid_utf8(value)
    short = F.when(F.octet_length(value) > RAW_CHARACTERS, F.left(valid, F.lit(RAW_CHARACTERS))).otherwise(valid)
    raw = F.coalesce(F.replace(short, F.lit("\0"), F.lit("\ufffd")), F.lit(""))
    framed = frame.select("source_file", "position", raw.alias("raw"), bare.alias("bare"), reason.alias("reason"))
    return framed.withColumn("line", F.when(F.col("reason").isNull(), F.col("bare"))).drop("bare")


def is_blank(value: Column) -> Column:
    """Whether a line has no text."""
    return F.ltrim(_bare(value), F.lit(" \t")) == ""


def _bare(value: Column) -> Column:
    """The text of a line without BOM and CR."""
    # most lines need neither trimming nor cutting, and both operations scan the whole line
    bare = F.when(F.endswith(value, F.lit("\r")), F.rtrim(value, F.lit("\r"))).otherwise(value)
    return F.when(F.startswith(bare, F.lit("\ufeff")), F.substring(bare, 2, 1 << 30)).otherwise(bare)


def origin() -> Column:
    """The origin of a line: its file below the landing folder, or the topic, partition and offset of its message."""
    is_message = F.startswith("source_file", F.lit(TOPIC_PREFIX))
    return F.when(is_message, F.concat_ws("/", "source_file", "position.line")).otherwise(F.col("source_file"))


def blank_as_null(column: Column) -> Column:
    """The text without surrounding white space; null if nothing is left."""
    return F.nullif(F.btrim(column.cast("string"), F.lit(BLANKS)), F.lit(""))


def missing_as_null(column: Column) -> Column:
    """The same; null also for the words that stand for a missing value."""
    text = blank_as_null(column)
    return F.when(~text.isin(*NULL_WORDS), text)
