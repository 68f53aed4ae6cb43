"""What a comparison of transfers holds beyond its main scores: other metrics, classes, confusion and calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtrain.evaluation.comparing.comparisons import NOT_DEFINED, OWN, Comparison, as_interval
from mtrain.evaluation.comparing.paired import Interval
from mtrain.report import charts
from mtrain.scoring import metrics
from mtrain.scoring.predictions import Answers, read_answers

SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "roc_auc": "ROC AUC",
    "quadratic_kappa": "quadratic kappa",
    "macro_auc": "mean ROC AUC of the classes",
    "pearson": "Pearson correlation",
    "r2": "share of the variance explained (R²)",
    "calibration_error": "calibration error",
    "dice": "Dice",
    "iou": "intersection over union",
    "f1": "F1 of points",
    "precision": "precision of points",
    "sensitivity": "sensitivity of points",
    "pq": "panoptic quality",
    "dq": "detection quality",
    "sq": "segmentation quality",
    "aji": "aggregated Jaccard index",
}
OF_CLASSES = ("dice", "iou", "f1", "pq", "dq", "sq", "aji")  # scores of masks, points and instances: also of each class
ERRORS = {"mae": "mean absolute error", "rmse": "root mean squared error"}
FEW_SHOT = "nearest class mean (SimpleShot)"
WEIGHTED = "mean of the training images, weighted by similarity"


@dataclass(frozen=True)
class ScoreCell:
    """A score in 0..1 with its interval, or why it is missing."""

    value: float | None
    interval: Interval | None = None
    missing: str = NOT_DEFINED


@dataclass(frozen=True)
class ClassRow:
    """One class: its name, its number of scored samples, and its recall by each network."""

    name: str
    samples: int
    recalls: list[ScoreCell]


@dataclass(frozen=True)
class Confusion:
    """Counts (classes, classes) of one network: rows are the true classes, columns the answers."""

    network: str
    counts: list[list[int]]


@dataclass(frozen=True)
class Details:
    """One section of the page. networks: the names of the columns of `scores`, `errors` and `classes`.

    errors: title with the unit -> the error of each network with its interval, in the unit.
    """

    title: str
    networks: list[str]
    scores: list[tuple[str, list[ScoreCell]]]
    names: list[str]
    classes: list[ClassRow]
    confusions: list[Confusion]
    figures: list[tuple[str, str]]
    seeds: dict[str, int]
    errors: list[tuple[str, list[str]]]

    @property
    def with_intervals(self) -> str:
        """What the caption of `scores` says of intervals: nothing if there is none."""
        return _with(cell for _, cells in self.scores for cell in cells)

    @property
    def calibrated(self) -> bool:
        """Whether `scores` has the calibration error."""
        return any(title == SCORES["calibration_error"] for title, _ in self.scores)

    @property
    def with_recall_intervals(self) -> str:
        """What the caption of `classes` says of intervals: nothing if there is none."""
        return _with(cell for row in self.classes for cell in row.recalls)


def _with(cells: Iterable[ScoreCell]) -> str:
    return ", with 95% intervals" if any(cell.interval for cell in cells) else ""


def details(c: Comparison, number: int, titles: Mapping[str, str], names: Sequence[str] | None) -> Details | None:
    """The details of one comparison; None where its results hold no more than their score.

    number: of the comparison in the page. titles: weights -> name. names: of the classes, where the task is known.
    """
    weights = sorted(c.results, key=lambda one: (one != OWN, one != c.baseline, one))
    first = {one: c.results[one][0] for one in weights}
    answers = {one: read_answers(result["answers"]) for one, result in first.items() if result.get("answers")}
    known = {one: found for one, found in answers.items() if found is not None and found.target is None}
    scores = [(title, [_cell(first[w], key) for w in weights]) for key, title in titles_of(first)]
    figures = [*_few_shot(c, weights, titles, number), *_calibration(known, titles, number)]
    if not scores and not figures:
        return None
    count = max((found.classes for found in known.values()), default=0)
    labels = list(names) if names and len(names) >= count else [f"class {label}" for label in range(count)]
    return Details(
        title=f"{c.task}: {c.how}, {c.scored_on} set",
        networks=[titles[one] for one in weights],
        scores=scores,
        names=labels,
        classes=_classes(known, first, weights, labels),
        confusions=[Confusion(titles[one], _counts(found)) for one, found in known.items()],
        figures=figures,
        seeds={titles[one]: len(c.results[one]) for one in weights if len(c.results[one]) > 1},
        errors=errors_of([first[one] for one in weights]),
    )


def errors_of(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the errors of numbers, each with its unit and, for each result, its value and interval in the unit."""
    unit = next((f" ({one['unit']})" for one in results if one.get("unit")), "")
    names = [name for name in ERRORS if any(name in one.get("scores", {}) for one in results)]
    return [(ERRORS[name] + unit, [_in_unit(one, name) for one in results]) for name in names]


def markdown_errors(sections: Iterable[Details | None]) -> list[str]:
    """Return a table of the errors of predicted numbers, in their units, as Markdown; nothing if there are none."""
    rows = [
        (one.title, title, network, text)
        for one in sections
        if one is not None
        for title, cells in one.errors
        for network, text in zip(one.networks, cells, strict=True)
    ]
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return ["| scored | error | network | value |", "|---|---|---|---:|", *lines, ""] if lines else []


def _in_unit(result: Mapping[str, Any], name: str) -> str:
    value, interval = result.get("scores", {}).get(name), as_interval(result.get("intervals", {}).get(name))
    if value is None:
        return "–"
    return f"{value:.4g}" + (f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else "")


def titles_of(results: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Key and title of each score that some result has, those of classes after their mean."""
    every = dict.fromkeys(key for one in results.values() for key in one.get("scores", {}))
    for key, title in SCORES.items():
        if key in every:
            yield key, title
        if key in OF_CLASSES:
            start = f"{key}_"
            yield from ((one, f"{title}: {one.removeprefix(start)}") for one in every if one.startswith(start))


def _cell(result: dict[str, Any], key: str) -> ScoreCell:
    scores = result.get("scores", {})
    missing = NOT_DEFINED if key in scores else "not available"  # a classifier without probabilities
    return ScoreCell(scores.get(key), as_interval(result.get("intervals", {}).get(key)), missing)


def _classes(
    known: Mapping[str, Answers], first: Mapping[str, dict[str, Any]], weights: Sequence[str], names: Sequence[str]
) -> list[ClassRow]:
    if not known:
        return []
    label = next(iter(known.values())).label
    counts = np.bincount(label, minlength=len(names))
    return [
        ClassRow(name, int(counts[c]), [_recall(first[one], c, int(counts[c])) for one in weights])
        for c, name in enumerate(names)
    ]


def _recall(result: dict[str, Any], label: int, samples: int) -> ScoreCell:
    cell = _cell(result, f"recall_{label}")
    return cell if samples else ScoreCell(None, None, "no samples")


def _counts(answers: Answers) -> list[list[int]]:
    counts: list[list[int]] = metrics.confusion(answers.label, answers.found, answers.classes).tolist()
    return counts


def _few_shot(
    c: Comparison, weights: Sequence[str], titles: Mapping[str, str], number: int
) -> Iterator[tuple[str, str]]:
    curves = {titles[one]: points for one in weights if (points := _curve(c.results[one][0]))}
    if curves:
        in_all = any("of" in point for one in weights for point in c.results[one][0].get("curve") or [])
        how = WEIGHTED if in_all else FEW_SHOT
        counted = "training images" if in_all else "training images per class"
        figure = charts.few_shot(curves, f"{c.metric}, percent", counted)
        words = "; ".join(f"{name}: {_in_words(points)}" for name, points in curves.items())
        caption = f"Few-shot: {how}; mean and standard deviation over draws of the training images"
        yield caption, charts.inline(figure, f"{c.task}, {caption}: {words}", f"few-shot-{number}")


def _curve(result: dict[str, Any]) -> list[tuple[float, float, float]]:
    points = result.get("curve") or []
    return [(one["k"], 100 * one["mean"], 100 * (one["std"] or 0)) for one in points if one["mean"] is not None]


def _in_words(points: Sequence[tuple[float, float, float]]) -> str:
    return ", ".join(f"{mean:.1f} with {k:g}" for k, mean, _ in points)


def _calibration(known: Mapping[str, Answers], titles: Mapping[str, str], number: int) -> Iterator[tuple[str, str]]:
    bins = {
        titles[one]: metrics.reliability(found.label, found.predictions.probabilities)
        for one, found in known.items()
        if found.predictions.probabilities is not None and len(found.label)
    }
    if bins:
        caption = "Calibration: share of correct predictions by confidence; the dashed line is perfect calibration"
        words = "; ".join(
            f"{name}: " + ", ".join(f"{100 * b.accuracy:.0f} at {100 * b.confidence:.0f}" for b in of)
            for name, of in bins.items()
        )
        yield caption, charts.inline(charts.calibration(bins), f"{caption}. {words}", f"calibration-{number}")
