"""Reports a sweep and its evaluations: a self-contained HTML page, with CSV, SVG and PNG files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain.atomic import replacing, write_text
from mtrain.evaluation import paper_tables, ranks, selection, selection_lines
from mtrain.evaluation.comparable import comparable
from mtrain.evaluation.comparisons import BASELINES, IMAGENET, METRICS, START
from mtrain.evaluation.paper_tables import COLUMNS, DENSE_COLUMNS, TITLES, TRANSFERS, Evaluation, TaskRow
from mtrain.evaluation.ranks import Summary
from mtrain.evaluation.selection import Selection
from mtrain.report import csv_files, figures
from mtrain.report.breakhis_table import MAGNIFICATIONS, breakhis_rows
from mtrain.report.charts import Dot, dots
from mtrain.report.run_page import template
from mtrain.runs import Run
from mtrain.sweep.spec import Combination, rate
from mtrain.sweep.store import Result, Store
from mtrain.transfers.results import results as transfer_results

SILENT = Reporter(quiet=True)
NUMBERS = {"svm": 2, "finetune": 3}  # of the paper's figures
MARKS = {1: '<span class="up" title="significantly better than the baseline">▲</span>',
         -1: '<span class="down" title="significantly worse than the baseline">▼</span>', 0: ""}  # fmt: skip


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
class ScoreTable:
    """Rows of one kind, and the columns and the modes whose gains they show."""

    title: str
    columns: Mapping[str, str]
    modes: tuple[str, ...]
    rows: list[TaskRow] = field(default_factory=list)


@dataclass(frozen=True)
class Network:
    """The evaluations of one network."""

    name: str
    rows: list[TaskRow]
    published: Mapping[str, TaskRow]
    figures: list[RenderedFigure] = field(default_factory=list)

    @property
    def tables(self) -> list[ScoreTable]:
        """The tables of classes, and of masks and points, that have rows."""
        kinds = (
            ScoreTable("classes", self._columns(COLUMNS), ("svm", "finetune")),
            ScoreTable("masks and points", self._columns(DENSE_COLUMNS), ("dense",)),
        )
        with_rows = (
            replace(one, rows=[row for row in self.rows if one.columns.keys() & row.scores.keys()]) for one in kinds
        )
        return [one for one in with_rows if one.rows]

    @property
    def baseline(self) -> str:
        """What multi-task is compared with, in words."""
        started = any(row.baseline(mode) == START for row in self.rows for mode in TRANSFERS)
        return "the published weights that it began from" if started else BASELINES[IMAGENET]

    def _columns(self, usual: Mapping[str, str]) -> dict[str, str]:
        """The columns, with the published weights that the network began from in place of ImageNet or beside it."""
        scored = {column for row in self.rows for column in row.scores}
        shown: dict[str, str] = {}
        for column, title in usual.items():
            mode, _, source = column.partition("-")
            started = source == IMAGENET and f"{mode}-{START}" in scored
            if not started or column in scored:
                shown[column] = title
            if started:
                shown[f"{mode}-{START}"] = TITLES[f"{mode}-{START}"]
        return shown


def write_sweep_report(store: Store, evaluations: Path, out: Path, *, paper: bool, report: Reporter = SILENT) -> Path:
    """Write the page to `out`, and its tables and figures to files beside it. Returns the page's path.

    Evaluations that cannot be compared with those of the sweep are left out; the page and `report` say which.

    Raises:
        RunError: a file of the sweep or an evaluation cannot be read.
        UsageError: no cell has a result yet.
    """
    chosen = selection.select(store, incomplete=True)
    planned = store.planned()
    results = store.results(planned)
    size = store.input_size()
    scored, left = _of_sweep(store, chosen, results, size, paper_tables.read_evaluations(evaluations))
    left = [*left, *paper_tables.undefined(scored), *paper_tables.untabled(scored)]
    networks = _networks(scored, paper=paper)
    patients, others = breakhis_rows(evaluations, chosen.backbones, paper=paper, size=size)
    for note in (*left, *others):
        report.note(note)
    baselines = _baselines(store, results)
    rates, heads = _rate_figures(chosen, baselines), _head_figures(chosen, baselines)
    drawn = [*(one for network in networks for one in network.figures), *rates, *heads]
    files = {
        "cells.csv": csv_files.cells(planned, results),
        "ranks.csv": csv_files.ranked(chosen),
        "table.csv": csv_files.scores([(network.name, network.rows, network.published) for network in networks]),
        **({"breakhis.csv": csv_files.breakhis(patients)} if patients else {}),
    }
    page = template(
        "sweep.html", counted=counted, spread=spread, mark=_mark, percents=_percents, rate=rate, two_lines=_two_lines
    ).render(
        sweep=store.name, there=len(results), planned=len(planned), grid=chosen.grid, networks=networks,
        metrics=METRICS, winners=_winners(chosen),
        friedman=selection_lines.friedman_line(chosen), notes=[*chosen.notes, *left, *others], rates=rates, heads=heads,
        patients=patients, magnifications=MAGNIFICATIONS,
        ranking=[selection_lines.text_row(chosen, c) for c in chosen.order], mode=chosen.mode,
        of_task=chosen.metrics, others=any(combination.others for combination in chosen.combinations),
        files=[*files, *(["figures/*.svg", "figures/*.png"] if drawn else [])],
    )  # fmt: skip
    for name, text in files.items():
        write_text(out.parent / name, text)
    for one in drawn:
        write_text(out.parent / "figures" / f"{one.name}.svg", one.svg)
        with replacing(out.parent / "figures" / f"{one.name}.png") as partial:
            partial.write_bytes(one.png)
    write_text(out, page)
    return out


def spread(found: Summary) -> str:
    """'75.05±0.70', as in the paper; '75.05' if there is only one value."""
    return f"{found.mean:.2f}" if found.spread is None else f"{found.mean:.2f}±{found.spread:.2f}"


def _percents(interval: tuple[float, float] | None, form: str = "{:.1f}") -> str:
    """'[80.1, 92.3]'; nothing where there is no interval."""
    return "" if interval is None else f"[{form.format(interval[0])}, {form.format(interval[1])}]".replace("-", "−")


def _mark(column: str, row: TaskRow) -> Markup:
    """The mark beside a multi-task score that differs significantly from that of the baseline."""
    mode, _, source = column.partition("-")
    return Markup(MARKS[row.verdict(mode) or 0] if source == "multitask" else "")


def _of_sweep(
    store: Store, chosen: Selection, results: Mapping[str, Result], size: int | None, found: Iterable[Evaluation]
) -> tuple[list[Evaluation], list[str]]:
    """The evaluations of the sweep's networks; of networks that left the target out, only the sweep's own runs. And
    notes on those that cannot be compared with its own.
    """
    combinations = {Path(result.run).name: str(result.combination) for result in results.values()}

    def apart(one: Evaluation) -> bool:
        return one.source == "multitask" and one.mode in TRANSFERS

    def ours(one: Evaluation) -> bool:
        return apart(one) and store.own(one.run) is not None

    def combination(one: Evaluation) -> str | None:
        return combinations.get(store.own(one.run) or "") if ours(one) else None

    usable = [
        one for one in found
        if one.backbone in chosen.backbones and (not apart(one) or one.run is None or ours(one))
    ]  # fmt: skip
    return comparable(usable, ours=ours, size=size, combination=combination)


def _two_lines(title: str) -> Markup:
    """'svm, ImageNet' over two lines."""
    return Markup("<br>").join(title.split(", "))


def _networks(evaluations: Sequence[Evaluation], *, paper: bool) -> list[Network]:
    published = paper_tables.published() if paper else {}
    networks = []
    for name in paper_tables.backbones(evaluations):
        rows = paper_tables.table(evaluations, name, intervals=True)
        known = {row.task: row for row in published.get(name, [])}
        networks.append(Network(name, rows, known, _network_figures(name, rows, known)))
    return networks


def _network_figures(name: str, rows: Sequence[TaskRow], published: Mapping[str, TaskRow]) -> list[RenderedFigure]:
    found = []
    for mode in TRANSFERS:
        if any(row.gain(mode) is not None for row in rows):
            minus = f"{name}, {mode}: multi-task minus {_baseline(rows, mode)}"
            caption = f"{minus}, with twice the larger standard deviation; " \
                      f"filled where significant{'; diamonds: as published' if published else ''}"  # fmt: skip
            words = ", ".join(f"{row.task} {row.gain(mode):+.2f}" for row in rows if row.gain(mode) is not None)
            figure = figures.differences(rows, mode, published)
            found.append(
                _drawn(f"figure-{NUMBERS.get(mode, mode)}-{_plain(name)}", caption, f"{caption}: {words}", figure)
            )
    if any(figures.APPROACHES.keys() & row.scores.keys() for row in rows):
        caption = f"{name}: mean scores of the ways to use it, with two standard deviations"
        words = "; ".join(f"{row.task}: {_in_words(row)}" for row in rows)
        found.append(_drawn(f"figure-4-{_plain(name)}", caption, f"{caption}: {words}", figures.approaches(rows)))
    return found + _interval_figures(rows, name)


def _baseline(rows: Sequence[TaskRow], mode: str) -> str:
    """What the rows with a gain in this mode are compared with."""
    return " or ".join(dict.fromkeys(BASELINES[row.baseline(mode)] for row in rows if row.gain(mode) is not None))


def _in_words(row: TaskRow) -> str:
    shown = {TITLES[column]: row.scores[column] for column in figures.APPROACHES if column in row.scores}
    return ", ".join(f"{label} {score.mean:.1f}" for label, score in shown.items())


def _interval_figures(rows: Sequence[TaskRow], name: str) -> list[RenderedFigure]:
    """The differences with their paired intervals, of the modes that have some."""
    found = []
    for mode in TRANSFERS:
        gains = [
            (row.task, {"multi-task": Dot(gain, row.differences[mode])})
            for row in rows
            if (gain := row.gain(mode)) is not None and mode in row.differences
        ]
        if gains:
            caption = (
                f"{name}, {mode}: multi-task minus {_baseline(rows, mode)}, with 95 % intervals on the same groups"
            )
            words = ", ".join(f"{task} {dot['multi-task'].value:+.2f}" for task, dot in gains)
            figure = dots(gains, figures.minus(_baseline(rows, mode)), zero=True)
            found.append(_drawn(f"differences-{mode}-{_plain(name)}", caption, f"{caption}: {words}", figure))
    return found


def _baselines(store: Store, results: Mapping[str, Result]) -> dict[tuple[str, str], float]:
    """(network, task) -> score of the ImageNet weights on the validation set by the sweep's transfer, in percent, where
    `mtrain transfer --weights imagenet` left it in a run of the sweep; the mean over its seeds.
    """
    settings = store.transfer_settings()
    found: dict[tuple[str, str], dict[int, float]] = {}
    for result in results.values():
        for one in transfer_results(Run(store.path / result.run)):
            told = one["identity"] | {"mode": one["mode"]}
            alike = all(told.get(name, value) == value for name, value in settings.items())
            if (one["weights"], one["set"]) == (IMAGENET, "val") and alike and one["score"] is not None:
                seeds = found.setdefault((result.combination.backbone, one["task"]), {})
                seeds[one["identity"].get("seed", 0)] = 100 * one["score"]
    return {case: ranks.summary(list(seeds.values())).mean for case, seeds in found.items()}


def _rate_figures(chosen: Selection, baselines: Mapping[tuple[str, str], float]) -> list[RenderedFigure]:
    """Figure 5 for each network and task with several learning rates."""
    found = []
    for backbone, task in _cases(chosen):
        scores = _grouped(chosen, backbone, task, lambda c: (-c.lr, rate(c.lr)))
        if len(scores) > 1:
            words = ", ".join(f"{key[1]}: {ranks.summary(values).mean:.1f}" for key, values in scores.items())
            baseline = baselines.get((backbone, task))
            figure = figures.by_rate({key[1]: values for key, values in scores.items()}, baseline)
            caption = f"{_case(chosen, task)}, {backbone}{_without(baseline)}"
            name = f"figure-5-{_plain(backbone)}-{_plain(task)}"
            found.append(_drawn(name, caption, f"{caption}: means by learning rate: {words}", figure))
    return found


def _head_figures(chosen: Selection, baselines: Mapping[tuple[str, str], float]) -> list[RenderedFigure]:
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
            words = ", ".join(f"tau {tau} warm-up {'on' if warm else 'off'}: {ranks.summary(values).mean:.1f}"
                              for (tau, warm), values in by_label.items())  # fmt: skip
            baseline = baselines.get((backbone, task))
            caption = f"{_case(chosen, task)}, {backbone}, learning rate {rate(lr)}{_without(baseline)}"
            name = f"figure-6-{_plain(backbone)}-{_plain(task)}"
            found.append(_drawn(name, caption, f"{caption}: {words}", figures.by_heads(by_label, baseline)))
    return found


def _without(baseline: float | None) -> str:
    return "; ImageNet was not scored on this validation set" if baseline is None else ""


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


def _drawn(name: str, caption: str, words: str, figure: Figure) -> RenderedFigure:
    return RenderedFigure(name, caption, words, figures.svg(figure), figures.png(figure))


def _winners(chosen: Selection) -> list[tuple[str, Combination | None, float]]:
    found: list[tuple[str, Combination | None, float]] = []
    for task in chosen.grid.tasks:
        for backbone in chosen.backbones:
            best = chosen.winner(task, backbone)
            found.append((task, None, 0.0) if best is None else (task, chosen.combinations[best[0]], best[1]))
    return found


def _plain(name: str) -> str:
    """The name with letters, digits, dash and underscore only, for files and for ids in the page."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name)
