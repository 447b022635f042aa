import re
from contextlib import nullcontext
from datetime import datetime

import pytest
from pyspark.sql import functions as F

from headwater.config import Source, UrlRule
from headwater.errors import UsageError
from headwater.ingest import access_log, fields, lines, times

AGENT = "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"


def texts(spark, *values):
    rows = [(f"{i}", (0, i), value, None, value) for i, value in enumerate(values)]
    schema = "source_file string, position struct<block: bigint, line: bigint>, raw string, reason string, line string"
    return spark.createDataFrame(rows, schema)


def taken(frame, *columns):
    return [tuple(row) for row in frame.orderBy("position").select(*columns).collect()]


def test_unusable_lines_get_a_reason_before_they_are_parsed(spark, tmp_path):
    name = "odd + name %20[1]#?.txt"
    good = "\ufeffgood\r\n".encode()
    (tmp_path / name).write_bytes(good + b"\n \t\nb\xe9d\nx\0y\n" + b"z" * 50 + b"\nhead\nlast")
    frame = lines.with_text(lines.read(spark, str(tmp_path), [str(tmp_path / name)]), 40, "head")
    assert taken(frame, "source_file", "reason", "line") == [
        (name, None, "good"),
        (name, "empty_line", None),
        (name, "empty_line", None),
        (name, "not_utf8", None),
        (name, "nul_byte", None),
        (name, "line_too_long", None),
        (name, "header", None),
        (name, None, "last"),
    ]


def test_quarantine_keeps_the_beginning_of_a_long_line(spark, tmp_path):
    (tmp_path / "long").write_text("x" * 2_000_000)
    [(raw, reason)] = taken(
        lines.with_text(lines.read(spark, str(tmp_path), [str(tmp_path / "long")]), 1_000_000), "raw", "reason"
    )
    assert (len(raw), reason) == (lines.RAW_CHARACTERS, "line_too_long")


IDS = {
    "12345678901234567890123456789012345678": ("12345678901234567890123456789012345678", None),
    "123456789012345678901234567890123456789": ("1.2345678901234568E38", "bad_id"),
    "1e2": ("100.0", "bad_id"),
    "1e400": ("Infinity", "bad_id"),
    "-0.001e-20": ("-1.0E-23", "bad_id"),
    "42.5": ("42.5", None),
    '"100.0"': ("100.0", None),
}
"""Numbers as ids in JSON, and what becomes of them; only some keep all their digits."""


def test_json_fields_are_found_by_dotted_path_and_keep_their_digits(spark):
    source = Source(format="json", glob="*", fields={"user_id": "who.the id", "item_id": "it's"})
    frame = texts(
        spark,
        '{"who": {"the id": 2103807459595387724}, "it\'s": " a ", "event_type": "view", "value": 2.5}',
        '{"who.the id": "flat", "item_id": "not this"}',
        '{"who": {"the id": {"x": 1}}}',
        '["a"]',
        '{"who": ',
        '{"a": 1, "a": 2}',
        '{"who": {"the id": "x"}}{"who": {"the id": "y"}}',
        '{"who": {"the id": "x"}}, {"who": {"the id": "y"}}',
        '{"who": {"the id": "x"}} and more',
        '{"who": {"the id": "comma"}} ,',
        '{"who": {"the id": "{quoted}"}}',
        "[" * 5000,
        *(f'{{"who": {{"the id": {number}}}}}' for number in IDS),
    )
    assert taken(fields.json_fields(frame, source), "user_id", "item_id", "value", "reason") == [
        ("2103807459595387724", "a", "2.5", None),
        ("flat", None, None, None),
        ('{"x":1}', None, None, "bad_id"),
        (None, None, None, "malformed_json"),
        (None, None, None, "malformed_json"),
        (None, None, None, "malformed_json"),
        (None, None, None, "malformed_json"),
        ("x", None, None, "malformed_json"),
        (None, None, None, "malformed_json"),
        ("comma", None, None, None),
        ("{quoted}", None, None, None),
        (None, None, None, "malformed_json"),
        *((shown, None, None, reason) for shown, reason in IDS.values()),
    ]


def test_a_word_for_a_missing_value_is_no_value_except_in_free_text(spark):
    columns = ("user_id", "item_id", "event_id", "value", "query")
    source = Source(format="csv", glob="*", constants={"event_type": "purchase"})
    frame = fields.csv_fields(texts(spark, "NULL,undefined,None,nan,null", "u,i,e,1,q"), source, columns)
    assert taken(frame, *columns) == [(None, None, None, None, "null"), ("u", "i", "e", "1", "q")]
    goods = fields.csv_fields(
        texts(spark, "null,None,NULL"), Source(format="catalog", glob="*"), ("item_id", "title", "category")
    )
    assert taken(goods, "item_id", "title", "category") == [(None, "None", None)]


def test_constants_fill_fields_that_a_line_lacks(spark):
    source = Source(format="json", glob="*", constants={"event_type": "purchase", "value": 2})
    frame = fields.json_fields(texts(spark, '{"value": 3}', "{}"), source)
    assert taken(frame, "event_type", "value") == [("purchase", "3"), ("purchase", "2")]


def test_csv_is_parsed_by_rfc_4180_and_lines_need_the_right_number_of_columns(spark):
    source = Source(format="csv", glob="*", delimiter=";", fields={"user_id": "u"})
    frame = texts(
        spark, '1;"a ""b"";c";x', "1;2", "1;2;3;4", ' 1 ;"";', '1;"open;x', '1;2;"open', ";" * 30_000, '1;5" pipe;x',
        'end of an open one";2;x', '1;2;end"',
    )  # fmt: skip
    assert taken(fields.csv_fields(frame, source, ("u", "item_id", "other")), "user_id", "item_id", "reason") == [
        ("1", 'a "b";c', None),
        ("1", "2", "malformed_csv"),
        ("1", "2", "malformed_csv"),
        ("1", None, None),
        (None, None, "malformed_csv"),
        (None, None, "malformed_csv"),
        (None, None, "malformed_csv"),
        ("1", '5" pipe', None),
        (None, None, "malformed_csv"),
        (None, None, "malformed_csv"),
    ]


CATALOGUE = (
    "item_id,title,category",
    'a,"a mug, blue',
    'of 12"" height","mugs',
    'and cups"',
    "b,a bowl,bowls",
    'c,12" pipe,"pipes',
    "",
    'and ""hoses"""\r',
    'd,"never ends,x',
    'e,"again",x',
    'f,"no "end",x',
    "g,last,x",
)


@pytest.mark.parametrize("max_bytes", [1_000, 20])
def test_a_quoted_field_of_a_catalogue_may_span_several_lines(spark, tmp_path, max_bytes):
    (tmp_path / "goods.csv").write_bytes("\n".join(CATALOGUE).encode())
    source = Source(format="catalog", glob="*")
    read = lines.joined(lines.read(spark, str(tmp_path), [str(tmp_path / "goods.csv")]), ",", max_bytes)
    frame = fields.csv_fields(lines.with_text(read, 1_000, CATALOGUE[0]), source, ("item_id", "title", "category"))
    rows = taken(frame.where("reason IS NULL"), "item_id", "title", "category")
    apart = [("b", "a bowl", "bowls"), ("e", "again", "x"), ("g", "last", "x")]
    over = [("a", 'a mug, blue\nof 12" height', "mugs\nand cups"), ("c", '12" pipe', 'pipes\n\nand "hoses"')]
    assert sorted(rows) == sorted(apart + (over if max_bytes == 1_000 else []))
    reasons = [row for (row,) in taken(frame.where("reason IS NOT NULL"), "reason")]
    assert reasons == (["header", *["malformed_csv"] * 2] if max_bytes == 1_000 else
                       ["header", *["malformed_csv"] * 4, "empty_line", *["malformed_csv"] * 3])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019-10-01T00:00:00Z", "2019-10-01 00:00:00"),
        ("2019-10-01 00:00:00 UTC", "2019-10-01 00:00:00"),
        ("2019-10-01T02:00:00.5+0200", "2019-10-01 00:00:00.5"),
        ("2019-10-01T02:00+02:00", "2019-10-01 00:00:00"),
        ("2019-07-01 12:00:00", "2019-07-01 11:00:00"),  # London's summer
        ("2019-12-01", "2019-12-01 00:00:00"),
        ("1569888000", "2019-10-01 00:00:00"),
        ("1569888000123", "2019-10-01 00:00:00.123"),
        ("1569888000123456", "2019-10-01 00:00:00.123456"),
        ("1569888000123456789", "2019-10-01 00:00:00.123456"),
        ("1.569888E9", "2019-10-01 00:00:00"),
        ("2019-02-30T00:00:00", None),
        ("12:00", None),
        ("yesterday", None),
        ("9" * 30, None),
    ],
)
def test_timestamps_of_many_formats_are_parsed_to_utc(spark, text, expected):
    frame = spark.createDataFrame([(text,)], "t string")
    moment = times.moment(F.col("t"), "Europe/London").alias("m")
    [row] = frame.select(F.date_format(moment, "yyyy-MM-dd HH:mm:ss.SSSSSS").alias("m")).collect()
    want = None if expected is None else datetime.fromisoformat(expected).strftime("%Y-%m-%d %H:%M:%S.%f")
    assert row["m"] == want


def test_a_source_can_have_its_own_time_pattern_and_zone(spark):
    frame = spark.createDataFrame([("1/7/2019 8:05",), ("2019-07-01T00:00:00Z",)], "t string")
    moment = times.moment(F.col("t"), "Europe/London", "d/M/yyyy H:mm")
    rows = frame.select(F.date_format(moment, "yyyy-MM-dd HH:mm").alias("m")).collect()
    assert [row["m"] for row in rows] == ["2019-07-01 07:05", "2019-07-01 00:00"]


@pytest.mark.parametrize(
    ("pattern", "reads"),
    [("", True), ("d/M/yyyy H:mm", True), ("yyyy-MM-dd[ HH:mm[XXX]]", True), ("%d/%m", False), ("bananas", False),
     ("EEE, d MMM yyyy HH:mm:ss Z", False)],  # Spark writes names of weekdays but does not read them
)  # fmt: skip
def test_a_time_pattern_that_spark_cannot_parse_with_is_a_usage_error(spark, pattern, reads):
    with nullcontext() if reads else pytest.raises(UsageError, match="time_format"):
        times.check_format(spark, Source(format="csv", glob="*", time_format=pattern))


def log_line(request="GET /p/a HTTP/1.1", status=200, address="10.0.0.1", account="-", agent=AGENT):
    return f'{address} - {account} [17/May/2015:10:05:03 +0000] "{request}" {status} 512 "-" "{agent}"'


RULES = [
    UrlRule(event_type="view", path=r"^/p/(?P<item_id>[^/?#[]+)$"),
    UrlRule(event_type="click", path=r"^/p/(?P<item_id>[^/?]+)\?.*\bu=(?P<user_id>\w+)"),
    UrlRule(event_type="search", path=r"^/search\?(?:.*&)?q=(?P<query>[^&]*)"),
]


def logs(spark, *values):
    return access_log.log_fields(texts(spark, *values), access_log.compile_rules(spark, RULES))


def test_the_first_url_rule_that_matches_turns_a_request_into_an_event(spark):
    frame = logs(
        spark,
        log_line("GET /p/a%20b+c HTTP/1.1", account="anna"),
        log_line("GET /p/x?u=bob HTTP/2.0", account="anna"),
        log_line("GET /search?page=2&q=red+m%C3%BCg%2B HTTP/1.1", address="2001:db8::1"),
        log_line("POST /p/a HTTP/1.1"),
        log_line(status=404),
        log_line(status=302, request="GET /p/%zz HTTP/1.1"),
        log_line("-", status=408),
        log_line("GET /p/%FCben HTTP/1.1"),
        log_line("GET /p/%EF%BF%BD HTTP/1.1"),
        log_line("GET /p/undefined?u=null HTTP/1.1", account="anna"),
    )
    assert taken(frame, "event_type", "item_id", "query", "user_id", "ignored") == [
        ("view", "a b+c", None, "anna", False),
        ("click", "x", None, "bob", False),
        ("search", None, "red müg+", None, False),
        (None, None, None, None, True),
        (None, None, None, None, True),
        ("view", "%zz", None, None, False),
        (None, None, None, None, True),
        ("view", "%FCben", None, None, False),
        ("view", "\ufffd", None, None, False),
        ("click", None, None, "anna", False),
    ]


def test_a_host_name_before_a_log_line_does_not_change_its_visitor(spark):
    lines = [log_line(address=address) for address in ("10.0.0.1", "2001:db8::1")]
    hosted = [f"{host} {line}" for host in ("shop.example:443", "www.shop.example", "shop") for line in lines]
    first, second, *same = taken(logs(spark, *lines, *hosted), "visitor", "reason")
    assert first != second
    assert same == [first, second] * 3


def test_a_visitor_is_identified_by_account_and_first_address_behind_any_proxies(spark):
    accounts = {"-": None, "anna": "anna", "joe smith": "joe smith", r"Jos\xC3\xA9 50%25": "José 50%25"}
    lines = [
        before + log_line(address="203.0.113.9" + by, account=account)
        for account in accounts
        for before in ("", "www.shop.example ", "shop:80 ")
        for by in ("", ", 10.0.0.7", ", 10.9.9.9, 10.0.0.7", ",10.0.0.7")
    ]
    rows = taken(logs(spark, *lines), "user_id", "visitor", "reason")
    one = rows[0][1]
    assert rows == [(user, one, None) for user in accounts.values() for _ in range(12)]


def test_a_quote_in_an_agent_is_read_and_a_broken_line_is_malformed(spark):
    frame = logs(spark, log_line(agent=r"Quo\"ted \\"), log_line()[:60], "", "no log \x01 line")
    assert taken(frame, "agent", "reason") == [
        (r"Quo\"ted \\", None),
        (None, "malformed_log"),
        (None, "malformed_log"),
        (None, "malformed_log"),
    ]


def test_hostile_log_lines_are_parsed_quickly_and_without_deep_recursion(spark):
    hostile = [
        '" 200 1 ' * 100_000,
        "[" * 500_000,
        log_line("GET /" + "\\x41" * 100_000),
        log_line(agent='\\"' * 200_000),
    ]
    reasons = taken(logs(spark, *hostile), "reason")
    assert reasons == [("malformed_log",), ("malformed_log",), ("line_too_long",), (None,)]


@pytest.mark.parametrize("path", [r"^/(?:\w+/)+(?P<item_id>\d+)$", r"^/(?:(?:\w|-)+/)+(?P<item_id>\d+)$"])
def test_a_url_rule_with_a_repeated_group_matches_the_longest_request(spark, path):
    rules = access_log.compile_rules(spark, [UrlRule(event_type="view", path=path)])
    longest = ["a/" * 4_080 + "7", "a" * 8_160 + "/7", "a/" * 4_080 + "x", "a/" * 8_200 + "7"]
    frame = access_log.log_fields(texts(spark, *(log_line(f"GET /{target} HTTP/1.1") for target in longest)), rules)
    assert taken(frame, "item_id", "ignored", "reason") == [
        ("7", False, None),
        ("7", False, None),
        (None, True, None),
        (None, False, "line_too_long"),
    ]


@pytest.mark.filterwarnings("ignore:Possible set intersection:FutureWarning")
@pytest.mark.parametrize(
    ("python", "text"),
    [
        (r"/(?P<item_id>[^/?[]+)", "/abc[d"),
        (r"/p/{(?P<item_id>\d{1,3})}", "/p/{12}"),
        (r"(?P<item_id>a|b)/(?P=item_id)0", "b/b0"),
        (r"(?P<item_id>[]a&&b]+)\Z", "x]&&a"),
        (r"(?P<item_id>\w+)", "/ü1"),
        (r"x(?P<item_id>a{,2})", "xaaa"),
    ],
)
def test_a_python_pattern_means_the_same_to_java(spark, python, text):
    pattern = re.compile(python)
    frame = spark.createDataFrame([(text,)], "t string")
    group = pattern.groupindex["item_id"]
    [row] = frame.select(F.regexp_extract("t", access_log.java_pattern(python), group).alias("g")).collect()
    assert row["g"] == pattern.search(text)["item_id"]


def test_a_pattern_that_java_does_not_support_is_a_usage_error(spark):
    with pytest.raises(UsageError, match="url_rules"):
        access_log.compile_rules(spark, [UrlRule(event_type="view", path=r"(a)?(?P<item_id>b)(?(1)c|d)")])
