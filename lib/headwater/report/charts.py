"""Charts as inline SVG that takes its colours and width from the page.

The canvas is narrow, so that text has a readable size on a phone and also beside another chart on a desktop.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater.report.markup import esc

WIDTH = 460
LEFT, RIGHT, TOP = 8, 8, 20
TONES = ("a", "b", "c", "d", "e")


def bars(
    rows: Sequence[tuple[str, float]], labels: Sequence[str], strong: Sequence[int] = (0,), limit: float = 0
) -> str:
    """Horizontal bars, one per row, with the name and label above the bar. ``strong`` rows have the accent colour.

    ``limit`` is the value of a full bar, by default the largest value of the rows. The text is HTML, so that it wraps.
    """
    most = limit or max((value for _, value in rows), default=0) or 1
    parts = []
    for place, ((name, value), label) in enumerate(zip(rows, labels, strict=True)):
        tone = "bar strong" if place in strong else "bar"
        length = max(0.4, 100 * max(0.0, value) / most)
        parts.append(
            f"<li><span>{esc(name)}</span><b>{esc(label)}</b>"
            '<svg viewBox="0 0 100 7" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="track" width="100" height="7"/><rect class="{tone}" width="{length:.2f}" height="7"/></svg></li>'
        )
    return f'<ul class="bars">{"".join(parts)}</ul>'


def columns(rows: Sequence[tuple[str, float]], labels: Sequence[str], height: int = 150) -> str:
    """Vertical columns above their names, each with its label on top; a name breaks at its first blank."""
    most = max((value for _, value in rows), default=0) or 1
    step = (WIDTH - LEFT - RIGHT) / max(1, len(rows))
    wide = min(44.0, step * 0.72)
    base = TOP + height
    every = -(-len(rows) // 10)
    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>']
    for place, ((name, value), label) in enumerate(zip(rows, labels, strict=True)):
        middle = LEFT + step * (place + 0.5)
        tall = height * max(0.0, value) / most
        parts.append(
            f'<rect class="bar strong" x="{middle - wide / 2:.1f}" y="{base - tall:.1f}" width="{wide:.1f}" '
            f'height="{tall:.1f}" rx="2"><title>{esc(name)}: {esc(label)}</title></rect>'
        )
        if place % every == 0:
            first, _, second = name.partition(" ")
            parts.append(_centred("value", middle, base - tall - 7, label) + _centred("tick", middle, base + 18, first))
            parts.append(_centred("tick", middle, base + 34, second))
    return _svg(base + (40 if any(" " in name for name, _ in rows) else 24), "".join(parts))


def lines(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], unit: str, height: int = 170) -> str:
    """Curves over integers such as epochs, given as (x, y) pairs in order of x, with a legend below."""
    points = [point for _, curve in series for point in curve]
    if not points:
        return ""
    (x0, x1), (y0, y1) = _span([x for x, _ in points]), _span([y for _, y in points])
    left, right, base = 46, WIDTH - 14, TOP + height

    def at(x: float, y: float) -> str:
        return f"{left + (right - left) * (x - x0) / (x1 - x0):.1f},{base - height * (y - y0) / (y1 - y0):.1f}"

    parts = []
    for share in (0.0, 0.5, 1.0):
        value, y = y0 + share * (y1 - y0), base - share * height
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for anchor, x in (("start", x0), ("end", x1)):
        place = left if anchor == "start" else right
        name = f"{unit} {x:g}" if anchor == "start" else f"{x:g}"
        parts.append(f'<text class="tick" x="{place}" y="{base + 18}" text-anchor="{anchor}">{esc(name)}</text>')
    legend = []
    for tone, (name, curve) in zip(TONES, series, strict=False):
        path = " ".join(at(x, y) for x, y in curve)
        last = at(*curve[-1]).split(",")
        title = f"<title>{esc(name)}: {curve[-1][1]:.4g}</title>"
        parts.append(
            f'<polyline class="curve {tone}" points="{path}">{title}</polyline>'
            f'<circle class="dot {tone}" cx="{last[0]}" cy="{last[1]}" r="3.5">{title}</circle>'
        )
        legend.append(f'<span class="key {tone}">{esc(name)} <b>{curve[-1][1]:.4g}</b></span>')
    return _svg(base + 26, "".join(parts)) + f'<p class="legend">{"".join(legend)}</p>'


def _centred(kind: str, x: float, y: float, text: str) -> str:
    if not text:
        return ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{esc(text)}</text>'


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The range of some values, never empty."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _svg(height: float, body: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img">{body}</svg>'
