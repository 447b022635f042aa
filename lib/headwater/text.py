"""Text from outside, made fit for one line of output."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """The text with each control character, including line breaks, replaced by a blank."""
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else " " for c in text)


def first_line(error: object) -> str:
    """The first line of an error's message, or the name of its class if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
