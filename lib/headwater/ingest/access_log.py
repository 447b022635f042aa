"""Combined access logs: one pattern for the line, then url rules that decide which requests are actions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from headwater.config import UrlRule
from headwater.errors import UsageError
from headwater.ingest.lines import blank_as_null, missing_as_null

# A log of several hosts may begin with the host, followed by its port or by an address. The address may be the list of hops that
# a request passed, the visitor's first. A quoted part ends at the first quote without an escaping backslash; quoted parts are
# atomic groups, so that no line takes quadratic time.
_QUOTED = r'"(?>(.*?(?<!\\)(?:\\\\)*)")'
LINE_PATTERN = (
    r"(?s)\A(?:[^\s:]{1,256}:\d{1,5} |[\w.-]{1,256} (?=[0-9A-Fa-f]{0,4}[.:][0-9A-Fa-f.:]{2,45}[, ]))?"
    r"([^\s,]{1,256})(?:, ?[^\s,]{1,256}){0,32} \S{1,256} ([^\[\]]{1,256}?) \[([^\]]{1,64})\] "
    + _QUOTED + r" (\d{3}) \S+(?: " + _QUOTED + " " + _QUOTED + r")?(?: .*)?\z"
)  # fmt: skip
GROUPS = {"address": 1, "account": 2, "timestamp": 3, "request": 4, "status": 5, "agent": 7}
SEPARATOR = "\x01"
MAX_REQUEST_LENGTH = 8_192
"""The request length that web servers accept. The rules are users' own patterns and never see longer text, for which
``spark.STACK`` may be too small."""


@dataclass(frozen=True)
class Rule:
    """A url rule in Java's syntax. A field holds the number of its regex group, 0 if the rule has none."""

    event_type: str
    method: str
    pattern: str
    item_id: int
    query: int
    user_id: int


def compile_rules(spark: SparkSession, rules: list[UrlRule]) -> list[Rule]:
    """The rules for Spark. Raises UsageError for a rule that Java's regular expressions cannot express."""
    compiled = []
    for rule in rules:
        groups = re.compile(rule.path).groupindex
        pattern = java_pattern(rule.path)
        try:
            spark._jvm.java.util.regex.Pattern.compile(pattern)  # type: ignore[union-attr]
        except Exception:
            raise UsageError(
                f"ingest.url_rules: {rule.path!r} uses syntax that Java's regular expressions do not support"
            ) from None
        numbers = [groups.get(name, 0) for name in ("item_id", "query", "user_id")]
        compiled.append(Rule(rule.event_type, rule.method.upper(), pattern, *numbers))
    return compiled


def java_pattern(python: str) -> str:
    """A Python pattern in Java's syntax: named groups become numbered, and literals that are special only in Java are escaped."""
    numbers = re.compile(python).groupindex
    out, i, in_class = "", 0, False
    while i < len(python):
        rest, char = python[i:], python[i]
        if char == "\\":
            out, i = out + ("\\z" if rest.startswith("\\Z") else rest[:2]), i + 2
        elif in_class:
            out, i, in_class = out + ("\\" + char if char in "[&" else char), i + 1, char != "]"
        elif char == "[":
            start = re.match(r"\[\^?\]?", rest).group()  # type: ignore[union-attr]
            out, i, in_class = out + start.replace("]", "\\]"), i + len(start), True
        elif named := re.match(r"\(\?P<\w+>", rest):
            out, i = out + "(", i + named.end()
        elif back := re.match(r"\(\?P=(\w+)\)", rest):
            out, i = out + f"(?:\\{numbers[back.group(1)]})", i + back.end()
        elif char == "{":
            counted = re.match(r"\{(\d*)(,?)(\d*)\}", rest)
            if counted and (counted.group(1) or counted.group(3)):
                low, comma, high = counted.groups()
                out, i = out + "{" + (low or "0") + comma + high + "}", i + counted.end()
            else:
                out, i = out + "\\{", i + 1
        else:
            out, i = out + char, i + 1
    return "(?U)" + out


def log_fields(frame: DataFrame, rules: list[Rule]) -> DataFrame:
    """Adds our fields, ``visitor`` (address and agent, for requests without a user), ``agent`` and ``ignored``.

    A line that does not match the log pattern gets the reason ``malformed_log``. A request that matches no rule, or whose
    status is not 2xx or 3xx, is ignored; it is not an error.
    """
    template = SEPARATOR.join(f"${number}" for number in GROUPS.values())
    text = F.col("line")
    parts = F.split(F.regexp_replace(text, LINE_PATTERN, template), SEPARATOR)
    split = frame.withColumn("parts", F.when(~F.contains(text, F.lit(SEPARATOR)), parts))
    part = {name: F.get("parts", F.lit(i)) for i, name in enumerate(GROUPS)}
    split = split.withColumns(part)
    too_long = F.length("request") > MAX_REQUEST_LENGTH
    # Apache writes a quote as \" and a byte as \xNN; absolute targets are proxy requests
    target = F.regexp_extract(F.when(~too_long, F.col("request")), r"(?s)^\S+ (.*?)(?: HTTP/\d(?:\.\d)?)?$", 1)
    target = _bytes_as_percent(F.replace(target, F.lit('\\"'), F.lit('"')))
    split = split.withColumn("target", F.regexp_replace(target, "^(?i)https?://[^/?]*", ""))
    split = split.withColumn("rule", F.when(F.rlike("status", F.lit("^[23]")), _first_matching_rule(rules)))

    def captured(field: str) -> Column:
        value = F.lit(None).cast("string")
        for number, rule in reversed(list(enumerate(rules))):
            if group := getattr(rule, field):
                extracted = F.regexp_extract("target", rule.pattern, group)
                value = F.when(F.col("rule") == number, extracted).otherwise(value)
        return F.nullif(value, F.lit(""))

    types = F.lit(None).cast("string")
    for number, rule in enumerate(rules):
        types = F.when(F.col("rule") == number, rule.event_type).otherwise(types)
    account = F.when(~F.col("account").isin("-", '""', "- -"), F.col("account"))
    in_bytes = F.contains(account, F.lit("\\x"))
    account = F.when(in_bytes, _decoded(_bytes_as_percent(F.replace(account, F.lit("%"), F.lit("%25"))))).otherwise(
        account
    )
    no_match = F.col("parts").isNull() | (F.size("parts") != len(GROUPS))
    reason = F.coalesce("reason", F.when(no_match, "malformed_log").when(too_long, "line_too_long"))
    nothing = F.lit(None).cast("string")
    return split.withColumns(
        {
            "reason": reason,
            "ignored": F.coalesce(reason.isNull() & F.col("rule").isNull(), F.lit(False)),
            "user_id": F.coalesce(missing_as_null(_decoded(captured("user_id"))), blank_as_null(account)),
            "visitor": F.concat("address", F.lit("\x1f"), F.coalesce("agent", F.lit(""))),
            "item_id": missing_as_null(_decoded(captured("item_id"))),
            "query": blank_as_null(_form_decoded(captured("query"))),
            "event_type": types,
            "event_id": nothing,
            "session_id": nothing,
            "value": nothing,
        }
    ).drop("parts", "address", "account", "request", "status", "target", "rule", "line")


def _first_matching_rule(rules: list[Rule]) -> Column:
    number = F.lit(None).cast("int")
    for i, rule in reversed(list(enumerate(rules))):
        same_method = F.upper(F.substring_index("request", " ", 1)) == rule.method
        number = F.when(same_method & F.rlike("target", F.lit(rule.pattern)), i).otherwise(number)
    return number


def _decoded(text: Column) -> Column:
    """Percent-decoded text. A plus stays a plus; text that cannot be decoded, for instance as UTF-8, stays unchanged."""
    return _if_decodable(F.try_url_decode(F.replace(text, F.lit("+"), F.lit("%2B"))), text)


def _form_decoded(text: Column) -> Column:
    """Text decoded as a form field, where a plus is a space."""
    return _if_decodable(F.try_url_decode(text), text)


def _if_decodable(decoded: Column, text: Column) -> Column:
    broken = F.contains(decoded, F.lit("\ufffd")) & ~F.contains(text, F.lit("%EF%BF%BD"))
    return F.when(decoded.isNull() | broken, text).otherwise(decoded)


def _bytes_as_percent(text: Column) -> Column:
    return F.regexp_replace(text, r"\\x([0-9A-Fa-f]{2})", "%$1")
