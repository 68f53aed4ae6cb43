"""Draws the paper's figures 2 to 6, from rows of the table or scores of a sweep, as SVG and PNG.

Every figure is narrow enough for a phone, and lists tasks vertically so that their names are readable. In a page the
colours follow its style sheet (variables --ink, --soft, --rule, --c1 ... --c4); in a file they are fixed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtrain.evaluation.paper_tables import TaskRow
from mtrain.evaluation.ranks import Summary, margin, summary

INK, SOFT, RULE, PAPER = "#1b1f24", "#5c6570", "#d9dee4", "#fefefe"
SERIES = ("#0b63b5", "#c05a00", "#17703c", "#7d3f98")
VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", RULE: "var(--rule)", PAPER: "none"} | {
    colour: f"var(--c{number})" for number, colour in enumerate(SERIES, start=1)
}
WIDTH = 4.6  # inches, at 10 points of text
STYLE: dict[Any, Any] = {
    "font.size": 10.0, "font.family": "sans-serif", "svg.fonttype": "none", "figure.facecolor": PAPER,
    "axes.facecolor": "none", "savefig.facecolor": PAPER, "text.color": INK, "axes.labelcolor": SOFT,
    "xtick.color": SOFT, "ytick.color": SOFT, "axes.edgecolor": RULE, "axes.spines.top": False,
    "axes.spines.right": False, "grid.color": RULE, "axes.axisbelow": True,
    "axes.labelsize": 9.0, "legend.fontsize": 9.0, "ytick.labelcolor": INK,
}  # fmt: skip
APPROACHES = {"scratch": "scratch", "svm-multitask": "svm", "finetune-multitask": "finetune", "joint": "joint"}
ERRORS: dict[str, Any] = {"fmt": "none", "color": INK, "ecolor": INK, "elinewidth": 1, "capsize": 2}
LEGEND: dict[str, Any] = {"loc": "lower center", "frameon": False, "labelcolor": INK}


def differences(rows: Sequence[TaskRow], mode: str, paper: Mapping[str, TaskRow] | None = None) -> Figure:
    """Figures 2 and 3: multi-task minus ImageNet by task, with twice the larger deviation; filled where significant.

    paper: the published rows by task, which are drawn as diamonds.
    """
    shown = [row for row in rows if row.gain(mode) is not None]
    figure, axes = _axes(height=0.34 * len(shown) + 0.9)
    for place, row in enumerate(shown):
        ours, theirs = row.scores[f"{mode}-multitask"], row.scores[f"{mode}-imagenet"]
        colour = SERIES[0] if ours.mean >= theirs.mean else SERIES[1]
        axes.barh(place, ours.mean - theirs.mean, 0.62, fc=colour if row.verdict(mode) else "none", ec=colour)
        if (room := margin(ours, theirs)) is not None:
            axes.errorbar(ours.mean - theirs.mean, place, xerr=room, **ERRORS)
        if paper and row.task in paper and (there := paper[row.task].gain(mode)) is not None:
            axes.plot(there, place, "D", ms=4, mfc="none", mec=SERIES[3])
    _tasks_down(axes, shown)
    axes.axvline(0, color=SOFT, lw=0.8)
    axes.set_xlabel("multi-task minus ImageNet, percentage points")
    return figure


def approaches(rows: Sequence[TaskRow]) -> Figure:
    """Figure 4: scratch, svm, finetune and joint side by side for each task, with two standard deviations."""
    shown = [row for row in rows if APPROACHES.keys() & row.scores.keys()]
    figure, axes = _axes(height=0.62 * len(shown) + 1.1)
    ends = []
    for number, (column, label) in enumerate(APPROACHES.items()):
        for place, row in enumerate(shown):
            if (score := row.scores.get(column)) is not None:
                at = place + 0.2 * (number - 1.5)
                axes.barh(
                    at,
                    score.mean,
                    0.19,
                    color=SERIES[number],
                    label=label if label not in _legend_labels(axes) else None,
                )
                if score.spread is not None:
                    axes.errorbar(score.mean, at, xerr=2 * score.spread, **ERRORS)
                ends.append(score)
    _tasks_down(axes, shown)
    axes.set_xlim(*_around(ends))
    axes.set_xlabel("score on the test set, percent")
    axes.legend(bbox_to_anchor=(0.4, 1), ncols=4, columnspacing=1, handlelength=1, **LEGEND)
    return figure


def by_rate(scores: Mapping[str, Sequence[float]]) -> Figure:
    """Figure 5: box plots of the scores (percent) of all trainings by learning rate; single points if there are few."""
    figure, axes = _axes(height=2.6)
    line = {"color": SERIES[0]}
    outliers = {"marker": "o", "ms": 3, "mfc": "none", "mec": SERIES[0]}
    axes.boxplot(
        list(scores.values()), tick_labels=list(scores), widths=0.5, boxprops=line, whiskerprops=line, capprops=line,
        medianprops={"color": SERIES[1], "lw": 1.6}, flierprops=outliers,
    )  # fmt: skip
    for place, values in enumerate(scores.values(), start=1):
        if len(values) <= 12:
            axes.plot([place] * len(values), values, "o", ms=3, color=SERIES[0], alpha=0.5)
    axes.grid(axis="y")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("validation score, percent")
    return figure


def by_heads(scores: Mapping[tuple[str, bool], Sequence[float]]) -> Figure:
    """Figure 6: mean scores (percent) by (tau, warm-up) at one learning rate, with two standard deviations."""
    figure, axes = _axes(height=2.6)
    taus = list(dict.fromkeys(tau for tau, _ in scores))
    summaries = {key: summary(values) for key, values in scores.items()}
    for warm, colour, shift in ((False, SERIES[0], -0.18), (True, SERIES[1], 0.18)):
        present = [(taus.index(tau), one) for (tau, w), one in summaries.items() if w == warm]
        if present:
            places, ones = zip(*present, strict=True)
            at = np.asarray(places) + shift
            label = f"{'with' if warm else 'without'} warm-up"
            axes.bar(at, [one.mean for one in ones], 0.34, color=colour, label=label)
            for place, one in zip(at, ones, strict=True):
                if one.spread is not None:
                    axes.errorbar(place, one.mean, yerr=2 * one.spread, **ERRORS)
    axes.set_xticks(range(len(taus)), taus)
    axes.set_ylim(*_around(summaries.values()))
    axes.grid(axis="y")
    axes.set_xlabel("tau, the heads' multiple of the learning rate")
    axes.set_ylabel("validation score, percent")
    axes.legend(bbox_to_anchor=(0.5, 1), ncols=2, **LEGEND)
    return figure


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


def _axes(height: float) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        return figure, figure.add_subplot()


def _tasks_down(axes: Axes, rows: Sequence[TaskRow]) -> None:
    short = {"accuracy": "acc", "roc_auc": "auc", "dice": "Dice", "f1": "F1"}
    axes.set_yticks(range(len(rows)), [f"{row.task} ({short.get(row.metric, row.metric)})" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)


def _legend_labels(axes: Axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def _around(scores: Iterable[Summary]) -> tuple[float, float]:
    """Axis limits that show the end of every bar with its deviations; bars start at the lower limit, not at zero."""
    ends = [(one.mean - 2 * (one.spread or 0), one.mean + 2 * (one.spread or 0)) for one in scores]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    room = max(high - low, 1.0) * 0.15
    return max(low - room, 0.0), min(high + room, 101.0)
