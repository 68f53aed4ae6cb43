"""The results of the transfer commands as lines to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpconvert.plural import counted
from mtrain.evaluation.evaluate import MULTITASK
from mtrain.runs.run_folder import Run
from mtrain.runs.untrained import Start
from mtrain.scoring.metrics import BESIDES, METRICS
from mtrain.transfers.request import OWN


def _network(result: Mapping[str, Any], run: Run) -> str:
    """Which network has this score: that of the run, or the same architecture with other weights."""
    if result["weights"] == OWN:
        return f"weights of run {run.name}"
    architecture = run.name if isinstance(run, Start) else f"the network of {run.name}"
    return f"weights {result['weights']} in {architecture}"


def transfer_lines(results: Iterable[dict[str, Any]], run: Run) -> list[str]:
    """A line for each result, each point of its curve, and each note; then one for the mean of several runs.

    A note on several runs of a task is stated once.
    """
    lines, found, noted = [], list(results), set[tuple[str, str]]()
    for result in found:
        how = f"{result['mode']}, {_network(result, run)}{_chosen(result)}"
        lines.append(f"{result['task']}: {_metric(result)} {_score(result)} on {result['set']} ({how})")
        for row in result.get("curve", []):
            spread = "" if row["std"] is None else f" +- {row['std']:.4f}"
            mean = "not defined" if row["mean"] is None else f"{row['mean']:.4f}"
            lines.append(f"  {row['k']:>3} {row.get('of', 'per class')}: {mean}{spread}")
        lines += [
            f"  {BESIDES[name]} {_value(result, name)}{_unit(result, name)}"
            for name in BESIDES
            if name in result.get("scores", {})
        ]
        for kind, of in result.get("objects", {}).items():
            lines.append(f"  {kind}: {of['objects']} objects, {of['found']} found")
        lines += [f"note: {note}" for note in result["notes"] if (result["task"], note) not in noted]
        noted |= {(result["task"], note) for note in result["notes"]}
    return [*lines, *_mean_lines(found)]


def _mean_lines(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line for each task with the mean and the standard deviation of its runs, where the mode has several."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for one in results:
        runs.setdefault(one["task"], []).append(one)
    for task, of in runs.items():
        scores = [one["score"] for one in of if one["score"] is not None]
        if len(scores) > 1:
            spread = f"{np.mean(scores):.4f} +- {np.std(scores, ddof=1):.4f}"
            yield f"{task}: {_metric(of[0])} {spread} on {of[0]['set']} (mean of {len(scores)} runs)"


def evaluation_lines(results: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each evaluation, and one for each note on those of a task."""
    lines = [
        f"{one['task']}: {_metric(one)} {_score(one)} on {one['set']} "
        f"({one['mode']}, {_source(one)}, {one['backbone']}, seed {one['seed']})"
        for one in results
    ]
    notes = Counter((one["task"], note) for one in results for note in one.get("notes", ()))
    return lines + [f"note: {task}, {counted(count, 'evaluation')}: {note}" for (task, note), count in notes.items()]


def _source(evaluation: Mapping[str, Any]) -> str:
    """Whose weights an evaluation is of: of the runs, each has its own."""
    source = str(evaluation["source"])
    return f"{source}, run {Path(evaluation['run']).name}" if source == MULTITASK else source


def breakhis_lines(result: dict[str, Any]) -> list[str]:
    """A line for each magnification, and each note on its folds."""
    lines, how = [], f"{result['mode']}, {_source(result)}, {result['backbone']}"
    for magnification, one in result["magnifications"].items():
        spread = "" if one["std"] is None else f" +- {100 * one['std']:.2f}"
        lines.append(
            f"{magnification}: patient accuracy {100 * one['mean']:.2f}{spread} over {len(one['folds'])} folds ({how})"
        )
        notes = Counter(note for fold in one["folds"] for note in fold.get("notes", ()))
        lines += [f"note: {magnification}, {counted(count, 'fold')}: {note}" for note, count in notes.items()]
    return lines


def _metric(result: dict[str, Any]) -> str:
    return METRICS.get(result["metric"], str(result["metric"]))


def _score(result: dict[str, Any]) -> str:
    return _with_interval(result, result["metric"], result["score"])


def _value(result: dict[str, Any], name: str) -> str:
    return _with_interval(result, name, result["scores"][name])


def _unit(result: dict[str, Any], name: str) -> str:
    return f" {result['unit']}" if name == "mae" and result.get("unit") else ""


def _with_interval(result: dict[str, Any], name: str, value: float | None) -> str:
    if value is None:
        return "not defined"
    interval = result["intervals"].get(name)
    return f"{value:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")


def _chosen(result: dict[str, Any]) -> str:
    if "C" in result:
        return f", C = {result['C']:g}"
    if "alpha" in result:
        return f", alpha = {result['alpha']:g}"
    if "steps" in result:
        moved = f", tune {result['tune']} at {result['lr']:g}" if result.get("moved") else ""
        decay = f", layer decay {result['layer_decay']:g}" if result.get("layer_decay") else ""
        return f", {result['steps']} steps{moved}{decay}"
    if "epochs" in result:
        return f", epoch {result['epoch']} of {result['epochs']}, seed {result['seed']}"
    if "k" in result:
        return f", k = {result['k']}"
    return f", lr {result['lr']:g}, epoch {result['epoch']}" if "lr" in result else ""
