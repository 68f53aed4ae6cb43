"""Draws histograms as inline SVG, with the numbers as alternative text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 16
WIDTH, HEIGHT, BASE = 320, 130, 105  # BASE: the bottom of the bars


@dataclass(frozen=True)
class Bar:
    """The number of values from `low` up to `high`. `high` itself counts only in the last bar."""

    low: float
    high: float
    count: int


def even_bars(values: NDArray[Any], most: int = BINS) -> list[Bar]:
    """Bars of equal width between the extremes; a single bar if all values are equal."""
    if not len(values):
        return []
    low, high = float(values.min()), float(values.max())
    if low == high:
        return [Bar(low, high, len(values))]
    counts, edges = np.histogram(values, bins=most, range=(low, high))
    return [Bar(float(a), float(b), int(n)) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)]


def doubling_bars(values: NDArray[Any]) -> list[Bar]:
    """Bars for whole numbers from 1: 1, 2 to 3, 4 to 7, ..."""
    if not len(values):
        return []
    powers = np.floor(np.log2(values)).astype(int)
    counts = np.bincount(powers)
    return [Bar(2.0**power, 2.0 ** (power + 1), int(n)) for power, n in enumerate(counts) if power >= powers.min()]


def in_words(values: NDArray[Any], unit: str) -> str:
    """The range and median in words: '112 to 768 px, half of them up to 256 px'."""
    low, middle, high = (number(v) for v in np.quantile(values, (0, 0.5, 1), method="lower"))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}, half of them up to {middle} {unit}"


def drawn(bars: list[Bar], title: str) -> Iterator[str]:
    """The SVG, with the limits of the first and last bar below, and the count of the highest bar above it."""
    highest = max((bar.count for bar in bars), default=0)
    yield f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
    step = WIDTH / max(len(bars), 4)
    for place, bar in enumerate(bars):
        tall = bar.count / highest * (BASE - 20)
        yield (
            f'<rect class="bar" x="{place * step + 1:.1f}" y="{BASE - tall:.1f}" width="{step - 2:.1f}" '
            f'height="{tall:.1f}"><title>{number(bar.low)} to {number(bar.high)}: {bar.count:,}</title></rect>'
        )
    if bars:
        top = next(place for place, bar in enumerate(bars) if bar.count == highest)
        side, x = ("start", top * step + 1) if top < len(bars) / 2 else ("end", (top + 1) * step - 1)
        yield f'<text x="{x:.1f}" y="14" text-anchor="{side}">{highest:,}</text>'
        yield f'<text x="1" y="{HEIGHT - 8}">{number(bars[0].low)}</text>'
        end = len(bars) * step - 1
        if bars[-1].high != bars[0].low:
            yield f'<text x="{end:.1f}" y="{HEIGHT - 8}" text-anchor="end">{number(bars[-1].high)}</text>'
    yield f'<path class="axis" d="M0 {BASE}H{WIDTH}"/></svg>'


def number(value: float) -> str:
    """The number with at most three decimals, without trailing zeros."""
    return f"{value:,.3f}".rstrip("0").rstrip(".")
