"""Draws the charts of a run's page: learning curves, scores with their intervals, few-shot curves and calibration.

Each function returns a matplotlib figure, which `inline` turns into an element of the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtrain.report import figures
from mtrain.report.figures import INK, SERIES, SOFT
from mtrain.scoring.metrics import Reliability

Points = Sequence[tuple[float, float]]
Interval = tuple[float, float]

SMALL = 3.0  # inches: the width of a chart in a grid of small ones
SMOOTH = 20  # a smoothed point is the mean of this fraction (1 / SMOOTH) of all points
LONGEST = 28  # characters of a name in a legend
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
WITH = ", with 95% intervals"


@dataclass(frozen=True)
class Dot:
    """A score or a difference in percent, with its interval where it has one."""

    value: float
    interval: Interval | None = None


def learning_curve(points: Points, label: str, *, small: bool = False) -> Figure | None:
    """Values by iteration, faintly, and their running mean; None without a finite value. points: by iteration."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return None
    figure, axes = figures.axes(1.8, SMALL) if small else figures.axes(2.4)
    marker = "." if len(finite) == 1 else ""
    if has_mean(finite):
        axes.plot(*zip(*finite, strict=True), color=SERIES[0], lw=0.8, alpha=0.4)
    axes.plot(*zip(*smoothed(finite), strict=True), marker=marker, color=SERIES[0], lw=1.6, solid_capstyle="round")
    axes.margins(x=0.02)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="y")
    axes.set_xlabel("iteration")
    axes.set_ylabel(label)
    return figure


def has_mean(points: Points) -> bool:
    """Whether there are enough points for a running mean that differs from them."""
    return len(points) >= SMOOTH


def smoothed(points: Points) -> list[tuple[float, float]]:
    """The running mean over a window centred on each point, which narrows towards both ends."""
    reach = max(1, len(points) // SMOOTH) // 2 + has_mean(points)
    result = []
    for i, (x, _) in enumerate(points):
        around = min(reach, i, len(points) - 1 - i)
        window = points[i - around : i + around + 1]
        result.append((x, sum(y for _, y in window) / len(window)))
    return result


def in_words(title: str, points: Points) -> str:
    """The first and the last finite value, as the alternative text of a learning curve."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    (first_x, first), (last_x, last) = finite[0], finite[-1]
    return f"{title}: {first:.3g} at iteration {first_x:g}, {last:.3g} at iteration {last_x:g}"


def dots(
    rows: Sequence[tuple[str, Mapping[str, Dot]]], label: str, *, zero: bool = False, series: Sequence[str] = ()
) -> Figure:
    """For each row (its title, series -> dot), one dot per series with its interval. zero: mark zero.

    series: all series, in the order of their colours, so that two charts show each in the same one.
    """
    names = list(dict.fromkeys([*series, *(name for _, row in rows for name in row)]))
    height = sum(0.34 + 0.15 * len(row) for _, row in rows) + 0.8
    figure, axes = figures.axes(height)
    place = 0.0
    for title, row in rows:
        axes.text(0.01, place, title, transform=axes.get_yaxis_transform(), va="center", ha="left", color=INK, size=9)
        if zero:  # beside the dots, not through the title
            axes.vlines(0, place + 0.5, place + len(row) + 0.5, color=SOFT, lw=0.8)
        for name, dot in row.items():
            place += 1
            _dot(axes, place, dot, names.index(name))
        place += 1.4
    axes.set_ylim(place - 0.6, -0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
    axes.grid(axis="x")
    axes.set_xlabel(label)
    if len(names) > 1:
        _legend(axes, names, {name for _, row in rows for name in row})
    return figure


def _dot(axes: Axes, place: float, dot: Dot, number: int) -> None:
    colour, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
    if dot.interval is not None:
        axes.plot(dot.interval, (place, place), color=colour, lw=1.4, solid_capstyle="butt")
    filled = "white" if number else colour
    axes.plot(dot.value, place, marker, ms=5, color=colour, mfc=figures.PAPER if filled == "white" else colour)


def _legend(axes: Axes, names: Sequence[str], shown: Set[str]) -> None:
    for number, name in enumerate(names):
        if name not in shown:
            continue
        colour = SERIES[number % len(SERIES)]
        marker = MARKERS[number % len(MARKERS)]
        axes.plot([], [], marker, ls="-", ms=5, color=colour, mfc=figures.PAPER if number else colour, label=name)
    _name_series(axes)


def intervals_of(rows: Iterable[tuple[str, Mapping[str, Dot]]], which: str = "") -> str:
    """What a caption says of the intervals of these rows of `dots`: nothing if there is none."""
    return f"{WITH}{which}" if any(dot.interval for _, row in rows for dot in row.values()) else ""


def _name_series(axes: Axes) -> None:
    """A legend above the axes, whose long names are shortened in the middle: the tables have them whole."""
    handles, names = axes.get_legend_handles_labels()
    short = [
        name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}\u2026{name[-LONGEST // 2 + 1 :]}" for name in names
    ]
    columns = 2 if max(map(len, short)) <= LONGEST // 2 else 1
    axes.legend(handles, short, bbox_to_anchor=(0.5, 1), ncols=columns, handlelength=1.6, **figures.LEGEND)


def few_shot(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], label: str, counted: str = "training images per class"
) -> Figure:
    """Score (percent) by number of images, with one standard deviation over the draws of them.

    curves: series -> (number of images, mean, deviation). counted: what the number counts.
    """
    figure, axes = figures.axes(2.6)
    for number, (name, points) in enumerate(curves.items()):
        colour = SERIES[number % len(SERIES)]
        x, mean, deviation = zip(*points, strict=True)
        filled = figures.PAPER if number else colour
        axes.errorbar(
            x,
            mean,
            yerr=deviation,
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            ms=5,
            mfc=filled,
            lw=1.4,
            capsize=2,
            label=name,
        )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.grid(axis="y")
    axes.set_xlabel(counted)
    axes.set_ylabel(label)
    _name_series(axes)
    return figure


def calibration(series: Mapping[str, Sequence[Reliability]]) -> Figure:
    """Reliability diagram: correct predictions by confidence, in percent; the diagonal is perfect calibration."""
    figure, axes = figures.axes(2.8, 3.4)
    axes.plot((0, 100), (0, 100), color=SOFT, lw=0.8, ls=(0, (4, 3)))
    for number, (name, bins) in enumerate(series.items()):
        colour = SERIES[number % len(SERIES)]
        x, y = [100 * one.confidence for one in bins], [100 * one.accuracy for one in bins]
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(x, y, marker=marker, ms=4, color=colour, mfc=figures.PAPER if number else colour, lw=1.2, label=name)
    axes.set_xlim(0, 103)
    axes.set_ylim(0, 103)
    axes.grid()
    axes.set_xlabel("confidence, percent")
    axes.set_ylabel("correct predictions, percent")
    _name_series(axes)
    return figure


def inline(figure: Figure, words: str, name: str) -> str:
    """The figure as an element of a page. words: the alternative text; name: a prefix of ids, unique in the page."""
    return figures.inline(figures.svg(figure), words, name)
