"""The results of a sweep as CSV text: cells, ranks, and the table of evaluated scores."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtrain.evaluation.paper_tables import TaskRow
from mtrain.evaluation.selecting import ranks, selected
from mtrain.evaluation.selecting.selection import Selection
from mtrain.report.breakhis_table import BreakhisRow
from mtrain.scoring.label_scores import ERRORS
from mtrain.sweep.cell_records import Planned, Result
from mtrain.sweep.combination import Combination

VALUES = tuple(field.name for field in dataclasses.fields(Combination))


def cells(planned: Sequence[Planned], results: Mapping[str, Result]) -> str:
    """A line for each cell and task, including those without a result; errors are those of predicted numbers."""
    rows = []
    for one in planned:
        result, c = results.get(one.cell), one.combination
        for task in one.tasks:
            score = result.scores.get(task) if result else None
            measured = [score.metric, score.set, score.score] if score else ["", "", ""]
            state, seconds = (result.state, result.seconds) if result else ("missing", "")
            reason = result.failures.get(task, "") if result else ""
            state = "scored" if score else state
            errors = [score.scores.get(name, "") if score else "" for name in ERRORS]
            rows.append([one.cell, *_values(c), one.seed, task, *measured, state, seconds, reason, *errors])
    head = ["cell", *VALUES, "seed", "task", "metric", "set", "score", "state", "seconds", "reason", *ERRORS]
    return csv_text(head, rows)


def ranked(chosen: Selection) -> str:
    """A line for each combination and task."""
    means = ranks.seed_means(chosen.grid.scores)
    bootstrap, rows = chosen.bootstrap, []
    for i, c in enumerate(chosen.combinations):
        of_combination = (chosen.mean_ranks[i], bootstrap.low[i], bootstrap.high[i], bootstrap.wins[i])
        for t, task in enumerate(chosen.grid.tasks):
            of_task = (means[i, t], selected.spread(chosen.grid.scores[i, t]), chosen.ranks[i, t])
            metric = chosen.metrics.get(task, "")
            numbers = [*map(_number, of_combination), task, metric, *map(_number, of_task)]
            rows.append([*_values(c), *numbers, _state(means[i, t])])
    head = [*VALUES, "mean_rank", "low", "high", "wins", "task", "metric", "mean", "std", "rank"]
    return csv_text([*head, "state"], rows)


def _values(combination: Combination) -> list[object]:
    return [getattr(combination, name) for name in VALUES]


def _number(value: float) -> float | str:
    """The number; empty if it is not finite."""
    return float(value) if math.isfinite(value) else ""


def _state(mean: float) -> str:
    if math.isnan(mean):
        return "no score"
    return "scored" if math.isfinite(mean) else "diverged"


def scores(networks: Iterable[tuple[str, Sequence[TaskRow], Mapping[str, TaskRow]]]) -> str:
    """A line for each network, task and column, with the published scores."""
    rows = []
    for name, own, published in networks:
        for row in own:
            published_row = published.get(row.task)
            for column, score in row.scores.items():
                mode, _, source = column.partition("-")
                verdict = row.verdict(mode) if source == "multitask" else ""
                theirs = published_row.scores.get(column) if published_row else None
                their_cells = [theirs.mean, theirs.spread] if theirs else ["", ""]
                about = [name, row.task, row.metric, row.size, column]
                rows.append([*about, score.mean, score.spread, score.count, row.best == column, verdict, *their_cells])
    head = ["backbone", "task", "metric", "train_val", "column", "mean", "std", "seeds", "best", "significant"]
    return csv_text([*head, "published_mean", "published_std"], rows)


def breakhis(rows: Iterable[BreakhisRow]) -> str:
    """A line for each network, column and magnification."""
    lines = []
    for row in rows:
        for name in row.magnifications:
            own, theirs = row.scores.get(name), row.published.get(name)
            own_cells = [own.mean, own.spread, own.count] if own else ["", "", ""]
            their_cells = [theirs.mean, theirs.std] if theirs else ["", ""]
            lines.append([row.backbone, row.column, name, *own_cells, row.seeds, *their_cells])
    head = ["backbone", "column", "magnification", "mean", "std", "folds", "seeds", "published_mean", "published_std"]
    return csv_text(head, lines)


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The CSV text: a header and the rows, without blank lines."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return buffer.getvalue()
