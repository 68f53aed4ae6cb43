"""Reports a sweep and its evaluations: a self-contained HTML page, with CSV, SVG and PNG files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain.disk.atomic import replacing, write_text
from mtrain.evaluation import paper_tables
from mtrain.evaluation.comparing.comparable import comparable, joint_notes
from mtrain.evaluation.comparing.comparisons import BASELINES, IMAGENET, START
from mtrain.evaluation.paper_tables import COLUMNS, DENSE_COLUMNS, TITLES, TRANSFERS, Evaluation, TaskRow
from mtrain.evaluation.selecting import selection, selection_lines
from mtrain.evaluation.selecting.ranks import Summary
from mtrain.evaluation.selecting.selection import Selection
from mtrain.report import csv_files, figures, grid_figures
from mtrain.report.breakhis_table import MAGNIFICATIONS, breakhis_rows
from mtrain.report.charts import Dot, dots
from mtrain.report.grid_figures import RenderedFigure, drawn, plain
from mtrain.report.pages.page import minus, template
from mtrain.report.soup_rows import soup_rows
from mtrain.scoring.effects import effect, effects
from mtrain.scoring.metrics import METRICS
from mtrain.sweep.cell_records import Result
from mtrain.sweep.combination import Combination, rate
from mtrain.sweep.store import Store

SILENT = Reporter(quiet=True)
NUMBERS = {"svm": 2, "finetune": 3}  # of the paper's figures
MARKS = {
    1: '<span class="up" title="significantly better than the baseline">▲</span>',
    -1: '<span class="down" title="significantly worse than the baseline">▼</span>',
    0: "",
}


@dataclass(frozen=True)
class ScoreTable:
    """Rows of one kind, and the columns and the modes whose gains they show. absent: titles of columns not shown."""

    title: str
    columns: Mapping[str, str]
    modes: tuple[str, ...]
    rows: list[TaskRow] = field(default_factory=list)
    absent: tuple[str, ...] = ()

    def filled(self, rows: Sequence[TaskRow], published: Mapping[str, TaskRow]) -> ScoreTable:
        """The table of those rows that have a score in it, with the columns of the modes that were scored."""
        rows = [row for row in rows if self.columns.keys() & row.scores.keys()]
        known = (published[row.task] for row in rows if row.task in published)
        scored = {_mode(name) for row in (*rows, *known) for name in row.scores}
        columns = {name: title for name, title in self.columns.items() if _mode(name) in scored}
        absent = tuple(title for name, title in self.columns.items() if _mode(name) not in scored)
        modes = tuple(mode for mode in self.modes if mode in scored)
        return ScoreTable(self.title, columns, modes, rows, absent)


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
        return [one for one in (kind.filled(self.rows, self.published) for kind in kinds) if one.rows]

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
    sizes = store.input_sizes(results.values())
    scored, left = _of_sweep(store, chosen, results, sizes, paper_tables.read_evaluations(evaluations))
    left = [*left, *paper_tables.undefined(scored), *paper_tables.untabled(scored), *joint_notes(scored)]
    networks = _networks(scored, paper=paper)
    patients, others = breakhis_rows(evaluations, chosen.backbones, paper=paper, sizes=sizes)
    for note in (*left, *others):
        report.note(note)
    beside = grid_figures.baselines(store, results)
    rates, heads = grid_figures.rate_figures(chosen, beside), grid_figures.head_figures(chosen, beside)
    shown = [*(one for network in networks for one in network.figures), *rates, *heads]
    files = {
        "cells.csv": csv_files.cells(planned, results),
        "ranks.csv": csv_files.ranked(chosen),
        "table.csv": csv_files.scores([(network.name, network.rows, network.published) for network in networks]),
        **({"breakhis.csv": csv_files.breakhis(patients)} if patients else {}),
    }
    page = _template().render(
        **_of_selection(store, chosen),
        scored=len(results),
        planned=len(planned),
        networks=networks,
        metrics=METRICS,
        notes=[*chosen.notes, *left, *others],
        rates=rates,
        heads=heads,
        patients=patients,
        magnifications=MAGNIFICATIONS,
        files=[*files, *(["figures/*.svg", "figures/*.png"] if shown else [])],
    )
    for name, text in files.items():
        write_text(out.parent / name, text)
    _write_figures(shown, out.parent / "figures")
    write_text(out, page)
    return out


def _template() -> Template:
    return template(
        "sweep.html", counted=counted, spread=spread, mark=_mark, percents=_percents, rate=rate, two_lines=_two_lines
    )


def _of_selection(store: Store, chosen: Selection) -> dict[str, Any]:
    """What the page says of the grid, the ranks of its combinations and the winners."""
    return {
        "sweep": store.name,
        "grid": chosen.grid,
        "winners": _winners(chosen),
        "soups": soup_rows(store),
        "friedman": selection_lines.friedman_line(chosen),
        "ranking": [selection_lines.text_row(chosen, c) for c in chosen.order],
        "mode": chosen.mode,
        "of_task": chosen.metrics,
        "others": any(combination.others for combination in chosen.combinations),
    }


def _write_figures(shown: Iterable[RenderedFigure], folder: Path) -> None:
    """Write each figure as SVG and PNG."""
    for one in shown:
        write_text(folder / f"{one.name}.svg", one.svg)
        with replacing(folder / f"{one.name}.png") as partial:
            partial.write_bytes(one.png)


def spread(found: Summary) -> str:
    """'75.05±0.70', as in the paper; '75.05' if there is only one value."""
    return f"{found.mean:.2f}" if found.spread is None else f"{found.mean:.2f}±{found.spread:.2f}"


def _mode(column: str) -> str:
    return column.partition("-")[0]


def _percents(interval: tuple[float, float] | None, *, signed: bool = False) -> str:
    """'[80.1, 92.3]'; nothing where there is no interval."""
    if interval is None:
        return ""
    return minus(effects(interval, 1, 1).strip() if signed else f"[{interval[0]:.1f}, {interval[1]:.1f}]")


def _mark(column: str, row: TaskRow) -> Markup:
    """The mark beside a multi-task score that differs significantly from that of the baseline."""
    mode, _, source = column.partition("-")
    return Markup(MARKS[row.verdict(mode) or 0] if source == "multitask" else "")


def _of_sweep(
    store: Store,
    chosen: Selection,
    results: Mapping[str, Result],
    sizes: Mapping[str, int],
    found: Iterable[Evaluation],
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
        one for one in found if one.backbone in chosen.backbones and (not apart(one) or one.run is None or ours(one))
    ]
    return comparable(usable, ours=ours, sizes=sizes, combination=combination)


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
            caption = (
                f"{minus}, with twice the larger standard deviation; "
                f"filled where significant{'; diamonds: as published' if published else ''}"
            )
            gains = {row.task: row.gain(mode) for row in rows}
            words = ", ".join(f"{task} {effect(gain, 2, 1)}" for task, gain in gains.items() if gain is not None)
            figure = figures.differences(rows, mode, published)
            found.append(
                drawn(f"figure-{NUMBERS.get(mode, mode)}-{plain(name)}", caption, f"{caption}: {words}", figure)
            )
    if any(figures.APPROACHES.keys() & row.scores.keys() for row in rows):
        caption = f"{name}: mean scores by mode of transfer, with two standard deviations"
        words = "; ".join(f"{row.task}: {_in_words(row)}" for row in rows)
        found.append(drawn(f"figure-4-{plain(name)}", caption, f"{caption}: {words}", figures.approaches(rows)))
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
            caption = f"{name}, {mode}: multi-task minus {_baseline(rows, mode)}, with 95% intervals on the same groups"
            words = ", ".join(f"{task} {effect(dot['multi-task'].value, 2, 1)}" for task, dot in gains)
            figure = dots(gains, figures.minus(_baseline(rows, mode)), zero=True)
            found.append(drawn(f"differences-{mode}-{plain(name)}", caption, f"{caption}: {words}", figure))
    return found


def _winners(chosen: Selection) -> list[tuple[str, Combination | None, float]]:
    found: list[tuple[str, Combination | None, float]] = []
    for task in chosen.grid.tasks:
        for backbone in chosen.backbones:
            best = chosen.winner(task, backbone)
            found.append((task, None, 0.0) if best is None else (task, chosen.combinations[best[0]], best[1]))
    return found
