"""Parts of the page: no data is interpreted as HTML, numbers are readable, charts keep their proportions."""

import re

import pytest

from headwater.errors import UsageError
from headwater.report import charts, markup, output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ('a "b" & c', "a &quot;b&quot; &amp; c"),
        ("bell\x07 line\nend", "bell  line end"),
        ("see http://x.org", "see http:&#47;&#47;x.org"),
    ],
)
def test_text_from_data_is_escaped(text, shown):
    assert markup.esc(text) == shown


@pytest.mark.parametrize(
    ("part", "total", "shown"),
    [(1, 4, "25.0_%"), (4, 4, "100_%"), (9_999, 10_000, ">_99.9_%"), (0, 3, "0.0_%"), (0, 0, "–")],
)
def test_a_share_is_shown_as_100_percent_only_if_it_is_exactly_that(part, total, shown):
    assert markup.percent(part, total) == shown.replace("_", "\u00a0")


def test_a_share_is_not_broken_across_lines():
    assert " " not in markup.esc(markup.percent(9_999, 10_000))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (2.25, "2.2 s"), (59, "59 s"), (90, "1.5 min"), (7_200, "2 h"), (172_800, "2 d")],
)
def test_a_duration_is_shown_in_a_suitable_unit(seconds, shown):
    assert markup.duration(seconds) == shown


def test_bars_are_as_long_as_their_values():
    drawn = charts.bars([("a", 4), ("b", 1), ("none", 0)], ["4", "1", "0"])
    assert re.findall(r'class="bar[^"]*" width="([\d.]+)"', drawn) == ["100.00", "25.00", "0.40"]


def test_columns_are_as_tall_as_their_values_and_survive_zeros():
    drawn = charts.columns([("1", 10.0), ("2", 5.0), ("3", 0.0)], ["10", "5", "0"], height=100)
    assert re.findall(r'<rect[^>]* height="([\d.]+)"', drawn) == ["100.0", "50.0", "0.0"]
    assert "nan" not in charts.columns([("1", 0.0)], [""])


def test_a_curve_of_equal_values_is_a_level_line():
    drawn = charts.lines([("loss", [(1, 2.0), (2, 2.0)])], "epoch")
    heights = {point.split(",")[1] for point in re.search(r'points="([^"]+)"', drawn).group(1).split()}
    assert len(heights) == 1


def test_an_output_path_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        output.check_writable(tmp_path)
    with pytest.raises(UsageError, match="nowhere"):
        output.check_writable(tmp_path / "nowhere" / "report.html")
