"""Folders of sweeps for the tests, without a training: the plan and the results that a sweep would have written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mtrain.disk.documents import write_document
from mtrain.sweep.cells import Cell
from mtrain.sweep.combination import Combination
from mtrain.sweep.spec import Sweep, load_sweep
from mtrain.sweep.store import Store

Scorer = Callable[[Combination, str, int], float | str | None]  # a score, "diverged" or "missing"
GRID = [Combination("tiny", lr, 5.0, warmup) for lr in (1e-3, 1e-4) for warmup in (True, False)]


def changed_sweep(text: str, changes: Sequence[tuple[str, str]], path: Path, shards: Path) -> Sweep:
    """The sweep that a file at `path` describes, of these shards: `text` with parts of it replaced."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return load_sweep(str(path)).model_copy(update={"shards": str(shards)})


def write_sweep(
    path: Path,
    scores: Scorer,
    *,
    combinations: Sequence[Combination] = GRID,
    sets: Sequence[tuple[str, ...]] = (("Lung",), ("Necrosis", "Glomeruli")),
    seeds: Sequence[int] = (0, 1),
) -> Store:
    """A sweep whose cell of (combination, set, seed) has the score `scores(combination, task, seed)` on each task."""
    store, planned = Store(path), []
    (path / "cells").mkdir(parents=True)
    for seed in seeds:
        for tasks in sets:
            for combination in combinations:
                cell = f"{len(planned):024}"
                about = {"cell": cell, "combination": asdict(combination), "seed": seed}
                planned.append({**about, "tasks": tasks})
                found = {task: scores(combination, task, seed) for task in tasks}
                if "missing" not in found.values():
                    write_document(store.result_path(cell), {**about, **_result(cell, found)})
    write_document(path / "sweep.json", {"sweep": {}, "cells": planned})
    return store


def write_result(
    store: Store, cell: Cell, failures: Mapping[str, str] | None = None, score: float | None = None
) -> None:
    """What a cell would have written: that its tasks failed for these reasons, or this score for all, or none."""
    about = {"cell": cell.digest, "combination": asdict(cell.combination), "seed": cell.config.seed}
    scores = (
        {} if score is None else {task: {"metric": "accuracy", "set": "val", "score": score} for task in cell.tasks}
    )
    state = {"state": "failed" if failures else "scored", "scores": scores, "failures": dict(failures or {})}
    write_document(store.result_path(cell.digest), about | state | {"run": f"runs/{cell.training}", "seconds": 0.0})


def _result(cell: str, found: dict[str, float | str | None]) -> dict[str, object]:
    diverged = "diverged" in found.values()
    scores = {task: {"metric": "accuracy", "set": "val", "score": score} for task, score in found.items()}
    state = "diverged" if diverged else "scored"
    return {
        "run": f"runs/{cell}",
        "state": state,
        "seconds": 1.0,
        "scores": {} if diverged else scores,
        "failures": dict.fromkeys(found, "the loss is not finite") if diverged else {},
    }
