"""What `selected.json` holds: the ranks of a sweep, and for each target the winner and its models."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from mtrain.disk.documents import without_nan
from mtrain.evaluation.selecting import ranks
from mtrain.evaluation.selecting.ranks import Values
from mtrain.evaluation.selecting.selection import Selection
from mtrain.sweep.cell_records import Planned, Result
from mtrain.sweep.combination import Combination
from mtrain.sweep.store import Store


def content(selection: Selection, store: Store) -> dict[str, Any]:
    """The content of selected.json: the ranks, and for each target the winner and its models, one per seed."""
    planned = store.planned()
    results = store.results(planned)

    def chosen(target: str | None, backbone: str | None) -> dict[str, Any] | None:
        found = selection.winner(target, backbone)
        if found is None:
            return None
        combination = selection.combinations[found[0]]
        models = _models(planned, results, combination, target)
        return {**asdict(combination), "mean_rank": found[1], "models": models}

    return {
        "sweep": selection.sweep,
        "mode": selection.mode,
        "tasks": list(selection.grid.tasks),
        "metrics": dict(selection.metrics),
        "seeds": list(selection.grid.seeds),
        "combinations": [_row(selection, c) for c in selection.order],
        "friedman": selection.friedman and dict(zip(("statistic", "p"), selection.friedman, strict=True)),
        "targets": {
            task: {
                "winner": chosen(task, None),
                "by_backbone": {backbone: chosen(task, backbone) for backbone in selection.backbones},
            }
            for task in selection.grid.tasks
        },
        "over_all_tasks": {backbone: chosen(None, backbone) for backbone in selection.backbones},
        "notes": list(selection.notes),
    }


def _models(
    planned: Iterable[Planned], results: Mapping[str, Result], combination: Combination, target: str | None
) -> list[dict[str, Any]]:
    """The runs of a combination that left the target out. Empty without a target: those are not trained yet."""
    return [
        {"seed": one.seed, "cell": one.cell, "run": results[one.cell].run}
        for one in planned
        if one.combination == combination
        and target in one.tasks
        and one.cell in results
        and target in results[one.cell].scores
    ]


def _row(selection: Selection, c: int) -> dict[str, Any]:
    means = ranks.seed_means(selection.grid.scores)[c]
    row = {
        "mean_rank": selection.mean_ranks[c],
        "interval": [selection.bootstrap.low[c], selection.bootstrap.high[c]],
        "wins": selection.bootstrap.wins[c],
    }
    by_task = {
        task: {"mean": mean, "std": spread(selection.grid.scores[c, t]), "rank": selection.ranks[c, t]}
        for t, (task, mean) in enumerate(zip(selection.grid.tasks, means, strict=True))
    }
    plain: dict[str, Any] = without_nan({**asdict(selection.combinations[c]), **row, "tasks": by_task})
    return plain


def spread(scores: Values) -> float:
    """Standard deviation over the available seeds; NaN if there are fewer than two, or if one diverged."""
    defined = scores[~np.isnan(scores)]
    found = ranks.summary(defined.tolist()).spread if len(defined) and np.isfinite(defined).all() else None
    return math.nan if found is None else found
