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
def test_of_an_error_its_first_line_is_told_and_its_class_where_it_says_nothing(error, line):
    assert first_line(error) == line


def test_control_characters_are_shown_as_blanks():
    assert printable("a\x1b[31mb\nç 5 €") == "a [31mb ç 5 €"
