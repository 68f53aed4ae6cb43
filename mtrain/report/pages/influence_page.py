"""Estimates of influence on one page, a heat map of sources and targets; and one estimate in lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dpconvert.plural import counted
from mtrain.disk.atomic import write_text
from mtrain.disk.documents import read_document
from mtrain.errors import RunError
from mtrain.report.pages.page import template, with_minus
from mtrain.runs.belonging import fault_of_result
from mtrain.runs.run_folder import Run
from mtrain.scoring.effects import effect, effects
from mtrain.scoring.metrics import METRICS

AGAIN = "`mtrain influence` makes it again"
BEST = 3  # smallest losses that the terminal shows
WIDTH, INDENT = 80, "    "  # of the lines of a transfer matrix


def documents(run: Run) -> list[dict[str, Any]]:
    """All estimates of the run, and of the runs beside it, each with its `file`.

    Raises:
        RunError: one of them is damaged.
    """
    paths = sorted(run.path.parent.glob("*/influence/*.json"))
    found = [(path, read_document(path, AGAIN)) for path in paths]
    estimates = [(path, content) for path, content in found if content.get("kind") == "influence"]
    for path, content in estimates:
        of_other = {"identity": {"weights_digest": content["identity"]["weights"]}}
        if fault := fault_of_result(Run(path.parent.parent), of_other):
            raise RunError(fault, where=path, remedy=f"remove it; {AGAIN}")
    return [content | {"file": str(path)} for path, content in estimates]


def write_page(run: Run) -> Path:
    """Write the page about all estimates of this folder of runs into the run's folder. Returns its path."""
    found = documents(run)
    names = sorted({row["task"] for one in found for row in one["sources"]})
    out = run.path / "influence" / "influence.html"
    numbers = {"nats": with_minus(effect), "effects": with_minus(effects), "number": with_minus(_number)}
    page = template("influence.html", shade=_shade, gain_shade=_gain_shade, metric=_metric, **numbers)
    largest = max((abs(row["theta"]) for one in found for row in one["sources"]), default=0.0)
    rows = [(name, [_cell(one, name) for one in found]) for name in names]
    matrices = {one["file"]: _table(one["matrix"]) for one in found if one.get("matrix")}
    write_text(out, page.render(found=found, rows=rows, largest=largest, matrices=matrices))
    return out


def _table(found: dict[str, Any]) -> dict[str, Any]:
    """A transfer matrix for the page: the gain over the initial weights of each cell, by row and target."""
    by_target = {target["task"]: _gains(found["rows"], target["task"]) for target in found["targets"]}
    every = [abs(gain) for of in by_target.values() for gain in of.values()]
    return found | {"gains": by_target, "largest": max(every, default=0.0)}


def _gains(rows: Sequence[dict[str, Any]], target: str) -> dict[str, float]:
    """By how much the network of each task alone scores better on a target than the initial weights (first row)."""
    start, *others = [row["cells"].get(target, {}).get("score") for row in rows]
    scored = zip(rows[1:], others, strict=True)
    return {row["source"]: score - start for row, score in scored if None not in (score, start)}


def lines(content: dict[str, Any]) -> Iterator[str]:
    """A line for each source, from the most helpful one; then what follows from them, and what it cost."""
    sources = counted(len(content["sources"]), "source task")
    yield (
        f"{content['target']}: loss {content['loss']:.4f} nats with all {sources}; "
        "theta is by how much a source lowers it (above 0: the source helps)"
    )
    for row in sorted(content["sources"], key=lambda row: -row["theta"]):
        beside = [] if row["cosine"] is None else [f"cosine of gradients {_number(row['cosine'])}"]
        beside += [f"{mode} alone {score:.4f}" for mode, score in sorted(row["single"].items())]
        beside += [f"{counted(row['shared_groups'], 'group')} shared"] if row.get("shared_groups") else []
        theta = f"theta {effect(row['theta'])}{effects(row['interval'])}, {row['sign']}"
        yield f"  {row['task']}: {'; '.join([theta, *beside])}"
    yield f"to leave out: {', '.join(content['leave_out']) or 'none'}"
    for one in sorted(content["best"], key=lambda one: one["loss"])[:BEST]:
        yield f"  best {one['size']}: {', '.join(one['tasks'])} (loss {one['loss']:.4f})"
    cost = content["cost"]
    yield (
        f"cost: {cost['seconds']:.0f} s, {cost['forward']} forward and {counted(cost['backward'], 'backward pass')}, "
        f"{counted(cost['regressions'], 'regression')}, {counted(content['subsets'], 'subset')}"
    )
    if content["verification"]:
        yield from _verified(content["verification"])
    if content.get("matrix"):
        yield from matrix_lines(content["matrix"])
    yield from (f"note: {note}" for note in content["notes"])


def matrix_lines(found: dict[str, Any]) -> Iterator[str]:
    cost, names = found["cost"], [target["task"] for target in found["targets"]]
    yield (
        f"transfer matrix ({found['mode']} probes of networks of one task each; "
        f"{counted(cost['trainings'], 'training run')}, {counted(cost['probes'], 'probe')}, {cost['seconds']:.0f} s):"
    )
    for row in found["rows"]:
        cells = [f"{name} {_score(row['cells'][name])}" for name in names if name in row["cells"]]
        yield from _in_lines(f"  {row['source'] or 'initial weights'}: ", cells)


def _in_lines(head: str, cells: Sequence[str]) -> Iterator[str]:
    """Cells behind their head, in as many lines as a terminal needs; no cell is divided."""
    line = head
    for number, cell in enumerate(cells, 1):
        cell += ", " if number < len(cells) else ""
        if line.strip() and len(line + cell.rstrip()) > WIDTH:
            yield line.rstrip()
            line = INDENT
        line += cell
    yield line.rstrip()


def _score(cell: dict[str, Any]) -> str:
    return "–" if cell.get("score") is None else f"{cell['score']:.4f}"


def _gain_shade(gain: float | None, largest: float) -> str:
    """The background of a cell of a transfer matrix: green where the network is better than the initial weights."""
    if gain is None:
        return ""
    strength = round(60 * min(1.0, abs(gain) / largest)) if largest else 0
    return f"background: color-mix(in srgb, {'#2a9d5c' if gain > 0 else '#d1495b'} {strength}%, transparent)"


def _verified(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"verified by {counted(found['subsets'], 'training run')}: rank correlation of estimate and truth "
        f"{_correlation(found['rank_correlation'])}; of the number of tasks and truth "
        f"{_correlation(found['size_correlation'])}"
    )
    yield (
        f"  signs right: {found['signs_right']} of {found['signs']}; of those that these runs establish, "
        f"{found['sure_signs_right']} of {found['sure_signs']}"
    )


def _correlation(one: dict[str, Any]) -> str:
    return "not defined" if one["value"] is None else f"{_number(one['value'])}{effects(one['interval'], 2, 1)}"


def _cell(content: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What an estimate says about a source, with the measured value if it was verified; None for another task."""
    row = next((row for row in content["sources"] if row["task"] == name), None)
    checked = (content["verification"] or {"sources": []})["sources"]
    return row and {**row, "checked": next((one for one in checked if one["task"] == name), None)}


def _number(value: float | None) -> str:
    return "–" if value is None else effect(value, 2, 1)


def _shade(row: dict[str, Any], largest: float) -> str:
    """The background of a cell: green helps, red harms, stronger for a larger theta; pale where the sign is unclear."""
    share = min(1.0, abs(row["theta"]) / largest) if largest else 0.0
    strength = round((10 + 50 * share) * (1 if row["sign"] != "unclear" else 0.4))
    colour = "#2a9d5c" if row["theta"] > 0 else "#d1495b"
    return f"background: color-mix(in srgb, {colour} {strength}%, transparent)"


def _metric(name: str) -> str:
    return METRICS.get(name, name)
