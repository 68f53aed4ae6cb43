"""A selection as lines of text and as cells of tables."""

from __future__ import annotations

import math

from mtrain.evaluation.selecting import ranks
from mtrain.evaluation.selecting.selection import Selection
from mtrain.scoring.metrics import METRICS


def lines(selection: Selection) -> list[str]:
    """The table and the winners as lines of text."""
    tasks = selection.grid.tasks
    head = ["combination", "mean rank", "95%", "wins", *tasks]
    rows = [text_row(selection, c) for c in selection.order]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    shown = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in [head, *rows]]
    return [
        *map("  ".join, shown),
        scored_by(selection),
        "",
        *_winners(selection),
        "",
        friedman_line(selection),
        *(f"note: {note}" for note in selection.notes),
    ]


def scored_by(selection: Selection) -> str:
    """What the scores are, such as 'scores in percent (svm): accuracy of Lung, Necrosis; ROC AUC of Glomeruli'."""
    tasks: dict[str, list[str]] = {}
    for task in selection.grid.tasks:
        tasks.setdefault(selection.metrics.get(task, "no score"), []).append(task)
    of = "; ".join(f"{METRICS.get(metric, metric)} of {', '.join(names)}" for metric, names in tasks.items())
    return f"scores in percent ({selection.mode}): {of}"


def text_row(selection: Selection, c: int) -> list[str]:
    found, means = selection.bootstrap, ranks.seed_means(selection.grid.scores)[c]
    scores = [_percent(mean) for mean in means]
    if math.isnan(selection.mean_ranks[c]):
        return [selection.grid.combinations[c], "no score", "none", "none", *scores]
    interval = f"{found.low[c]:.1f}-{found.high[c]:.1f}"
    return [selection.grid.combinations[c], f"{selection.mean_ranks[c]:.2f}", interval, f"{found.wins[c]:.0%}", *scores]


def _winners(selection: Selection) -> list[str]:
    found = []
    for task in selection.grid.tasks:
        best = selection.winner(task)
        if best is None:
            found.append(f"{task}: no other task was scored to choose by")
        else:
            found.append(f"{task}: {selection.combinations[best[0]]} (mean rank {best[1]:.2f} on the other tasks)")
    return found


def friedman_line(selection: Selection) -> str:
    if selection.friedman is None:
        return "Friedman test: not defined (it needs three combinations, two tasks and a difference)"
    statistic, p = selection.friedman
    verdict = "the combinations differ" if p < 0.05 else "no evidence that the combinations differ"
    return f"Friedman test: chi-square {statistic:.2f}, p = {p:.3g}: {verdict}"


def _percent(mean: float) -> str:
    if math.isinf(mean):
        return "diverged"
    return "none" if math.isnan(mean) else f"{100 * mean:.2f}"
