"""Draws the paper's figures 2 to 6, from rows of the table or scores of a sweep, as SVG and PNG.

Every figure is narrow enough for a phone, and lists tasks vertically so that their names are readable. In a page the
colours follow its style sheet (variables --ink, --soft, --rule, --c1 ... --c4); in a file they are fixed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtrain.evaluation.comparing.comparisons import BASELINES
from mtrain.evaluation.paper_tables import TITLES, TaskRow
from mtrain.evaluation.selecting.ranks import margin, summary
from mtrain.scoring.metrics import METRICS

INK, SOFT, RULE, PAPER = "#1b1f24", "#5c6570", "#d9dee4", "#fefefe"
SERIES = ("#0b63b5", "#c05a00", "#17703c", "#7d3f98")
VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", RULE: "var(--rule)", PAPER: "none"} | {
    colour: f"var(--c{number})" for number, colour in enumerate(SERIES, start=1)
}
MOST_POINTS, FEWEST_IN_BOX = 12, 5  # scores at a learning rate
WIDTH = 4.6  # inches, at 10 points of text
STYLE: dict[Any, Any] = {
    "font.size": 10.0,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "axes.axisbelow": True,
    "axes.labelsize": 9.0,
    "legend.fontsize": 9.0,
    "ytick.labelcolor": INK,
    "axes.formatter.useoffset": False,
}
# columns of the table -> colour and marker; the baselines are hollow
APPROACHES = {
    "scratch": (SERIES[0], "o"),
    "svm-imagenet": (SERIES[1], "s"),
    "svm-start": (SERIES[1], "s"),
    "svm-multitask": (SERIES[1], "s"),
    "finetune-imagenet": (SERIES[2], "D"),
    "finetune-start": (SERIES[2], "D"),
    "finetune-multitask": (SERIES[2], "D"),
    "joint": (SERIES[3], "^"),
}
ERRORS: dict[str, Any] = {"fmt": "none", "color": INK, "ecolor": INK, "elinewidth": 1, "capsize": 2}
LEGEND: dict[str, Any] = {"loc": "lower center", "frameon": False, "labelcolor": INK}


def differences(rows: Sequence[TaskRow], mode: str, paper: Mapping[str, TaskRow] | None = None) -> Figure:
    """Figures 2 and 3: multi-task minus its baseline, with twice the larger deviation; filled where significant.

    paper: the published rows by task, which are drawn as diamonds.
    """
    shown = [row for row in rows if row.gain(mode) is not None]
    figure, plot = axes(height=0.42 * len(shown) + 0.9)
    for place, row in enumerate(shown):
        ours, theirs = row.scores[f"{mode}-multitask"], row.scores[f"{mode}-{row.baseline(mode)}"]
        colour = SERIES[0] if ours.mean >= theirs.mean else SERIES[1]
        plot.barh(place, ours.mean - theirs.mean, 0.62, fc=colour if row.verdict(mode) else "none", ec=colour)
        if (room := margin(ours, theirs)) is not None:
            plot.errorbar(ours.mean - theirs.mean, place, xerr=room, **ERRORS)
        if paper and row.task in paper and (gain := paper[row.task].gain(mode)) is not None:
            plot.plot(gain, place, "D", ms=4, mfc="none", mec=SERIES[3])
    _tasks_down(plot, shown)
    plot.axvline(0, color=SOFT, lw=0.8)
    plot.set_xlabel(minus(" or ".join(dict.fromkeys(BASELINES[row.baseline(mode)] for row in shown))))
    return figure


def minus(baseline: str) -> str:
    """The label of an axis of differences."""
    return f"multi-task minus {baseline}, percentage points"


def approaches(rows: Sequence[TaskRow]) -> Figure:
    """Figure 4: all ways to transfer side by side for each task, baselines hollow, with two standard deviations."""
    shown = [row for row in rows if APPROACHES.keys() & row.scores.keys()]
    figure, plot = axes(height=0.62 * len(shown) + 1.4)
    scored = [column for column in APPROACHES if any(column in row.scores for row in shown)]
    for number, column in enumerate(scored):
        colour, marker = APPROACHES[column]
        label: str | None = TITLES[column]
        for place, row in enumerate(shown):
            if (score := row.scores.get(column)) is not None:
                reach = 2 * score.spread if score.spread is not None else None
                height = place + 0.13 * (number - (len(scored) - 1) / 2)
                filled = PAPER if column.endswith(("-imagenet", "-start")) else colour
                plot.errorbar(
                    score.mean,
                    height,
                    xerr=reach,
                    fmt=marker,
                    ms=5,
                    color=colour,
                    mfc=filled,
                    elinewidth=1,
                    capsize=2,
                    label=label,
                )
                label = None
    _tasks_down(plot, shown)
    plot.set_xlabel("score on the test set, percent")
    plot.legend(bbox_to_anchor=(0.4, 1), ncols=2, columnspacing=1, handlelength=1, **LEGEND)
    return figure


def by_rate(scores: Mapping[str, Sequence[float]], baselines: Mapping[str, float] | None = None) -> Figure:
    """Figure 5: the scores (percent) of all training runs by learning rate, with their number n.

    Up to MOST_POINTS scores are points; from FEWEST_IN_BOX on, there is a box plot, below that a line at the median.
    baselines: title -> score (percent) of weights without multi-task training, each drawn as a line.
    """
    figure, plot = axes(height=2.6)
    line = {"color": SERIES[0]}
    outliers = {"marker": "o", "ms": 3, "mfc": "none", "mec": SERIES[0]}
    places = dict(enumerate(scores.values(), start=1))
    boxes = {place: values for place, values in places.items() if len(values) >= FEWEST_IN_BOX}
    if boxes:
        plot.boxplot(
            list(boxes.values()),
            positions=list(boxes),
            manage_ticks=False,
            widths=0.5,
            boxprops=line,
            whiskerprops=line,
            capprops=line,
            medianprops={"color": SERIES[1], "lw": 1.6},
            flierprops=outliers,
        )
    for place, values in places.items():
        if len(values) <= MOST_POINTS:
            plot.plot([place] * len(values), values, "o", ms=3, color=SERIES[0], alpha=0.5)
        if place not in boxes:
            middle = median(values)
            plot.plot((place - 0.25, place + 0.25), (middle, middle), color=SERIES[1], lw=1.6)
    plot.set_xticks(list(places), [f"{rate}\nn = {len(values)}" for rate, values in scores.items()])
    plot.set_xlim(0.5, len(places) + 0.5)
    _baselines(plot, baselines or {})
    plot.grid(axis="y")
    plot.set_xlabel("learning rate")
    plot.set_ylabel("validation score, percent")
    if baselines:
        plot.legend(bbox_to_anchor=(0.5, 1), **LEGEND)
    return figure


def by_heads(
    scores: Mapping[tuple[str, bool], Sequence[float]], baselines: Mapping[str, float] | None = None
) -> Figure:
    """Figure 6: mean scores (percent) by (tau, warm-up) at one learning rate, with two standard deviations.

    baselines: title -> score (percent) of weights without multi-task training, each drawn as a line.
    """
    figure, plot = axes(height=2.6)
    taus = list(dict.fromkeys(tau for tau, _ in scores))
    summaries = {key: summary(values) for key, values in scores.items()}
    for warm, colour, shift in ((False, SERIES[0], -0.18), (True, SERIES[1], 0.18)):
        present = [(taus.index(tau), one) for (tau, w), one in summaries.items() if w == warm]
        if present:
            places, ones = zip(*present, strict=True)
            at = np.asarray(places) + shift
            label = f"{'with' if warm else 'without'} warm-up"
            plot.plot(at, [one.mean for one in ones], "s" if warm else "o", ms=5, color=colour, label=label)
            for place, one in zip(at, ones, strict=True):
                if one.spread is not None:
                    plot.errorbar(place, one.mean, yerr=2 * one.spread, **{**ERRORS, "ecolor": colour})
    plot.set_xticks(range(len(taus)), taus)
    _baselines(plot, baselines or {})
    plot.set_xlim(-0.6, len(taus) - 0.4)
    plot.grid(axis="y")
    plot.set_xlabel("tau, the heads' multiple of the learning rate")
    plot.set_ylabel("validation score, percent")
    plot.legend(bbox_to_anchor=(0.5, 1), ncols=2, columnspacing=1, **LEGEND)
    return figure


def _baselines(plot: Axes, scores: Mapping[str, float]) -> None:
    """A line for each of `scores`, in the order of `BASELINES`, each dashed in its own way."""
    for title, dashes in zip(BASELINES.values(), ((4, 3), (1, 2)), strict=True):
        if title in scores:
            plot.axhline(scores[title], color=SERIES[3], lw=1.2, ls=(0, dashes), label=title)


def svg(figure: Figure) -> str:
    """The figure as the text of an SVG file. Equal figures give equal texts."""
    buffer = io.StringIO()
    nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "figure"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.06, metadata=nothing)
    return re.sub(r"[ \t]+$", "", buffer.getvalue(), flags=re.MULTILINE)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file with 200 dots per inch, for slides and programs without SVG."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=200, bbox_inches="tight", pad_inches=0.06, metadata={"Software": None})
    return buffer.getvalue()


def inline(text: str, words: str, name: str) -> str:
    """An SVG file as an element of a page, with its colours, `words` as alternative text and `name` before ids."""
    body = text[text.index("<svg") :]
    opening, rest = body.split(">", 1)
    view = re.search(r'viewBox="[^"]+"', opening)
    assert view is not None
    rest = re.sub(r"<style.*?</style>", "", rest, flags=re.DOTALL).replace("xlink:href", "href")
    rest = re.sub(r'font-family: [^;"]+; ?', "", rest)
    rest = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", rest)
    rest = re.sub("|".join(VARIABLES), lambda match: VARIABLES[match[0]], rest)
    return f'<svg {view[0]} role="img" aria-label="{escape(words)}">{rest}'


def axes(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure of this size in inches, and its only axes, in the style of the reports."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        return figure, figure.add_subplot()


def _tasks_down(axes: Axes, rows: Sequence[TaskRow]) -> None:
    labels = [f"{row.task}\n({METRICS.get(row.metric, row.metric)})" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=9.0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
