"""Cheaper indicators shown beside an influence estimate: the cosine of task gradients, the scores of single-task
networks on the target, and the groups (slides, patients) that two tasks share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtrain.data.task import Task
from mtrain.errors import UserError
from mtrain.influence.margins import Values
from mtrain.influence.subsets import FOLDER
from mtrain.runs.run_folder import Run
from mtrain.transfers.results import results

if TYPE_CHECKING:
    from mtrain.influence.estimator import Estimator


def cosine(one: Values, other: Values) -> float | None:
    """Cosine of the angle between two vectors, or None if either is 0."""
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if length else None


def beside(rows: Sequence[Mapping[str, Any]], estimator: Estimator, target: Task, run: Run) -> list[dict[str, Any]]:
    """Add the cheaper indicators to the row of each source.

    cosine: between the gradients of the mean losses of source and target in the shared weights; 1 means the same
        direction.
    single: scores of networks trained on the source alone, by transfer mode.
    shared_groups: number of slides or patients that occur in both.
    """
    pull = estimator.target.train.loss_gradient()
    alone, shared = _single(run, target), _shared_groups(estimator, target)
    return [
        {
            **row,
            "cosine": cosine(estimator.sources[row["task"]].loss_gradient(), pull),
            "single": alone.get(row["task"], {}),
            "shared_groups": shared[row["task"]],
        }
        for row in rows
    ]


def _shared_groups(estimator: Estimator, target: Task) -> dict[str, int]:
    """Count the groups (slides, patients) that each source shares with the target's training and validation sets."""
    own = {str(group) for rows in target.rows.values() for group in rows.group}
    return {name: len(own & groups) for name, groups in estimator.groups_of.items()}


def _single(run: Run, target: Task) -> dict[str, dict[str, float]]:
    """Scores on the target of networks trained on one source alone, by source and transfer mode."""
    found: dict[str, dict[str, float]] = {}
    for other in _all(run.path.parent):
        try:
            pool, scored = list(other.about().get("pool", {})), results(other)
            comparable = other.config().backbone == run.config().backbone
        except UserError:
            continue  # the commands that use a damaged run report it
        if len(pool) != 1 or not comparable:
            continue
        for one in scored:
            same = one["task"] == target.name and one["weights"] == "run" and not one["identity"].get("final")
            if same and one["score"] is not None:
                found.setdefault(pool[0], {})[one["mode"]] = one["score"]
    return found


def _all(runs: Path) -> Iterator[Run]:
    for pattern in ("*/config.json", f"{FOLDER}/*/config.json"):
        yield from (Run(path.parent) for path in sorted(runs.glob(pattern)))
