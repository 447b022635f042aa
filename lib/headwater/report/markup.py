"""Small pieces of HTML; all text from data passes through ``esc``."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from headwater.clock import DAY
from headwater.text import printable


def esc(value: object) -> str:
    """Text escaped for HTML. Control characters become blanks, and URLs are broken up, so the page refers to no other host."""
    return html.escape(printable(str(value))).replace("://", ":&#47;&#47;")


def whole(value: float | None) -> str:
    """A count with thousands separated, or a dash."""
    return "–" if value is None else f"{int(value):,}".replace(",", "\u202f")


def decimal(value: float | None, digits: int = 4) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def percent(part: float, total: float, digits: int = 1) -> str:
    """A share that no line break divides, or a dash."""
    if not total:
        return "–"
    share = 100 * part / total
    rounded = f"{share:.{digits}f}"
    if part != total and float(rounded) == 100:
        return f">\u00a0{100 - 10**-digits:.{digits}f}\u00a0%"
    return ("100" if part == total else rounded) + "\u00a0%"


def duration(seconds: float | None) -> str:
    """A duration in the most readable unit."""
    if seconds is None:
        return "–"
    for size, unit in ((DAY, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def moment(seconds: float | None) -> str:
    """A time as ``2026-01-31 09:30`` UTC."""
    return "–" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d\u00a0%H:%M")


def plural(count: float, one: str, many: str) -> str:
    return f"{whole(count)} {one if count == 1 else many}"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], text: Sequence[int] = (0,), strong: Sequence[int] = ()
) -> str:
    """A table whose cells are already HTML; columns in ``text`` are left-aligned, rows in ``strong`` are emphasised."""

    def cell(tag: str, place: int, inner: str) -> str:
        kind = "" if place in text else ' class="n"'
        return f"<{tag}{kind}>{inner}</{tag}>"

    top = "".join(cell("th", place, name) for place, name in enumerate(head))
    body = ""
    for number, row in enumerate(rows):
        cells = "".join(cell("td", place, inner) for place, inner in enumerate(row))
        body += f'<tr class="strong">{cells}</tr>' if number in strong else f"<tr>{cells}</tr>"
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(title: str, body: str, note: str = "") -> str:
    caption = f"<figcaption>{esc(title)}{f'<small>{esc(note)}</small>' if note else ''}</figcaption>"
    return f"<figure>{caption}{body}</figure>"


def pair(*figures: str) -> str:
    """Figures side by side where there is room, one below the other on a phone."""
    return f'<div class="pair">{"".join(figures)}</div>'


def missing(sentence: str) -> str:
    """The sentence that a section shows in place of its content."""
    return f'<p class="missing">{esc(sentence)}</p>'


def plain(name: str | None) -> str:
    """An internal name for people, with underscores replaced by blanks."""
    return str(name or "–").replace("_", " ")
