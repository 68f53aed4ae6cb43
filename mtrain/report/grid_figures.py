"""Draws the figures of a sweep's grid, 5 and 6 of the paper: validation scores by learning rate, tau and warm-up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mtrain.evaluation.comparing.comparisons import BASELINES, IMAGENET, START, is_start, start_of
from mtrain.evaluation.selecting import ranks
from mtrain.evaluation.selecting.selection import Selection
from mtrain.report import figures
from mtrain.runs.run_folder import Run
from mtrain.scoring.metrics import METRICS
from mtrain.sweep.cell_records import Result
from mtrain.sweep.combination import Combination, rate
from mtrain.sweep.store import Store
from mtrain.transfers.results import results as transfer_results


@dataclass(frozen=True)
class RenderedFigure:
    """One figure: `name` is the stem of its files, `words` the alternative text."""

    name: str
    caption: str
    words: str
    svg: str
    png: bytes

    @property
    def inline(self) -> str:
        return figures.inline(self.svg, self.words, self.name)


@dataclass(frozen=True)
class Baselines:
    """What the networks of a sweep are compared with on the validation sets.

    expected: network -> `START` if it began from published weights, else `IMAGENET`.
    scores: (network, task) -> title of a baseline -> its score in percent, the mean over its seeds.
    """

    expected: Mapping[str, str]
    scores: Mapping[tuple[str, str], Mapping[str, float]]

    def of(self, backbone: str, task: str) -> Mapping[str, float]:
        return self.scores.get((backbone, task), {})

    def missing(self, backbone: str, task: str) -> str:
        """The end of a caption that says which baseline was not scored; "" where it was."""
        title = BASELINES[self.expected.get(backbone, IMAGENET)]
        are = "were" if title.endswith("s") else "was"
        return "" if title in self.of(backbone, task) else f"; {title} {are} not scored on this validation set"


def baselines(store: Store, results: Mapping[str, Result]) -> Baselines:
    """The scores that `mtrain transfer --weights` left in runs of the sweep, of transfers with the sweep's settings.

    Raises:
        RunError: a result of a transfer, or the configuration of a run that has some, is damaged.
    """
    settings = store.transfer_settings()
    starts: dict[str, Path | None] = {}
    found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for result in results.values():
        run, backbone = Run(store.path / result.run), result.combination.backbone
        if backbone not in starts and run.exists:
            starts[backbone] = start_of(run)
        for one in transfer_results(run):
            name = START if is_start(one["weights"], starts.get(backbone)) else one["weights"]
            settings_of_it = one["identity"] | {"mode": one["mode"]}
            alike = all(settings_of_it.get(key, value) == value for key, value in settings.items())
            if name in BASELINES and one["set"] == "val" and alike and one["score"] is not None:
                seeds = found.setdefault((backbone, one["task"]), {}).setdefault(BASELINES[name], {})
                seeds[one["identity"].get("seed", 0)] = 100 * one["score"]
    expected = {backbone: IMAGENET if start is None else START for backbone, start in starts.items()}
    means = {case: {title: _mean(seeds.values()) for title, seeds in by.items()} for case, by in found.items()}
    return Baselines(expected, means)


def _mean(values: Iterable[float]) -> float:
    return ranks.summary(list(values)).mean


def rate_figures(chosen: Selection, beside: Baselines) -> list[RenderedFigure]:
    """Figure 5 for each network and task with several learning rates."""
    found = []
    for backbone, task in _cases(chosen):
        scores = _grouped(chosen, backbone, task, lambda c: (c.lr, rate(c.lr)))
        if len(scores) > 1:
            words = ", ".join(f"{key[1]}: {ranks.summary(values).mean:.1f}" for key, values in scores.items())
            figure = figures.by_rate({key[1]: values for key, values in scores.items()}, beside.of(backbone, task))
            caption = f"{_case(chosen, task)}, {backbone}{beside.missing(backbone, task)}"
            name = f"figure-5-{plain(backbone)}-{plain(task)}"
            found.append(drawn(name, caption, f"{caption}: means by learning rate: {words}", figure))
    return found


def head_figures(chosen: Selection, beside: Baselines) -> list[RenderedFigure]:
    """Figure 6 for each network and task, at the learning rate of the network's best combination."""
    found = []
    for backbone, task in _cases(chosen):
        best = chosen.winner(None, backbone)
        if best is None:
            continue
        lr = chosen.combinations[best[0]].lr
        scores = _grouped(chosen, backbone, task, lambda c: (c.tau, c.warmup), only=lr)
        if len(scores) > 1:
            by_label = {(f"{tau:g}", warm): values for (tau, warm), values in scores.items()}
            words = ", ".join(
                f"tau {tau} warm-up {'on' if warm else 'off'}: {ranks.summary(values).mean:.1f}"
                for (tau, warm), values in by_label.items()
            )
            caption = f"{_case(chosen, task)}, {backbone}, learning rate {rate(lr)}{beside.missing(backbone, task)}"
            name = f"figure-6-{plain(backbone)}-{plain(task)}"
            figure = figures.by_heads(by_label, beside.of(backbone, task))
            found.append(drawn(name, caption, f"{caption}: {words}", figure))
    return found


def _case(chosen: Selection, task: str) -> str:
    """The task with its metric, such as 'Lung (ROC AUC)'."""
    metric = chosen.metrics.get(task, "")
    return f"{task} ({METRICS.get(metric, metric)})"


def _cases(chosen: Selection) -> Iterable[tuple[str, str]]:
    return ((backbone, task) for backbone in chosen.backbones for task in chosen.grid.tasks)


def _grouped(
    chosen: Selection, backbone: str, task: str, key: Callable[[Combination], Any], only: float | None = None
) -> dict[Any, list[float]]:
    """Finite scores in percent of one network on one task, grouped by key and sorted by it."""
    found: dict[Any, list[float]] = {}
    t = chosen.grid.tasks.index(task)
    for c, combination in enumerate(chosen.combinations):
        if combination.backbone == backbone and only in (None, combination.lr):
            values = [100 * score for score in chosen.grid.scores[c, t].tolist() if abs(score) <= 1]
            found.setdefault(key(combination), []).extend(values)
    return {k: found[k] for k in sorted(found) if found[k]}


def drawn(name: str, caption: str, words: str, figure: Figure) -> RenderedFigure:
    """The figure as SVG and PNG."""
    return RenderedFigure(name, caption, words, figures.svg(figure), figures.png(figure))


def plain(name: str) -> str:
    """The name with letters, digits, dash and underscore only, for files and for ids in the page."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name)
