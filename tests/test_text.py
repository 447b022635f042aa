"""Text from elsewhere, reduced to one printable line."""

import pytest

from headwater.text import first_line, printable


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one line"), "one line"),
        (ValueError("\n  first\nsecond"), "first"),
        (ValueError(), "ValueError"),
        (TimeoutError(" \n"), "TimeoutError"),
    ],
)
def test_an_error_is_reduced_to_its_first_line_or_to_its_class_if_it_has_no_text(error, line):
    assert first_line(error) == line


def test_control_characters_are_shown_as_blanks():
    assert printable("a\x1b[31mb\nç\u2028 5\u00a0€") == "a [31mb ç  5\u00a0€"
