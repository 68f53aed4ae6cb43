"""Draws line charts as SVG: one `<svg>` element, coloured by the page's CSS (classes axis, raw, line)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 36, 12, 30
TICKS = 4
SMOOTH = 20  # a smoothed point is the mean of this fraction (1 / SMOOTH) of all points


def line_chart(title: str, points: Points, *, width: int = WIDTH, height: int = HEIGHT) -> str:
    """An `<svg>` element: the values of `points` (x, y), sorted by x, faintly, and their running mean."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return ""
    xs, ys = ticks(finite[0][0], finite[-1][0]), ticks(min(y for _, y in finite), max(y for _, y in finite))
    low_x, high_x = min(xs[0], finite[0][0]), finite[-1][0]
    inner_width, inner_height = width - LEFT - RIGHT, height - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / (high_x - low_x) if high_x > low_x else 0.5
        up = (y - ys[0]) / (ys[-1] - ys[0])
        return LEFT + across * inner_width, TOP + (1 - up) * inner_height

    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(_in_words(title, finite))}">',
        *(_grid_line(place(low_x, y)[1], y, width) for y in ys),
        *(_mark(place(x, ys[0])[0], x, height) for x in xs if low_x <= x <= high_x),
        f'<path class="raw" d="{_path([place(x, y) for x, y in finite])}"/>',
        f'<path class="line" d="{_path([place(x, y) for x, y in smoothed(finite)])}"/>',
        "</svg>",
    ]
    return "".join(parts)


def smoothed(points: Points) -> list[tuple[float, float]]:
    """The running mean over a window centred on each point, which narrows towards both ends."""
    reach = max(1, len(points) // SMOOTH) // 2 + (len(points) >= SMOOTH)
    result = []
    for i, (x, _) in enumerate(points):
        around = min(reach, i, len(points) - 1 - i)
        window = points[i - around : i + around + 1]
        result.append((x, sum(y for _, y in window) / len(window)))
    return result


def ticks(low: float, high: float) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from at most `low` to at least `high`."""
    span = (high - low) or abs(high) or 1.0
    exponent = math.floor(math.log10(span / TICKS))
    step = next(m * 10.0**exponent for m in (1, 2, 5, 10) if m * 10.0**exponent * TICKS >= span * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _grid_line(y: float, value: float, width: int) -> str:
    return (
        f'<path class="axis" d="M{LEFT} {y:.1f}H{width - RIGHT}"/>'
        f'<text class="axis" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    )


def _mark(x: float, value: float, height: int) -> str:
    return f'<text class="axis" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{value:g}</text>'


def _path(points: Points) -> str:
    """A path through the points. A single point becomes a line of zero length, which round caps draw as a dot."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + ("h0" if len(points) == 1 else "")


def _in_words(title: str, points: Points) -> str:
    (first_x, first), (last_x, last) = points[0], points[-1]
    return f"{title}: {first:.3g} at iteration {first_x:g}, {last:.3g} at iteration {last_x:g}"
