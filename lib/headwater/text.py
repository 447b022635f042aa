"""What others wrote, made fit for one line of ours."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with a blank for each control character, line breaks among them."""
    return "".join(c if c.isprintable() else " " for c in text)


def first_line(error: object) -> str:
    """The first line of what an error says, and the name of its class where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
