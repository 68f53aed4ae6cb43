"""Estimates of influence on one page, a heat map of sources and targets; and one estimate in lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mtrain.atomic import write_text
from mtrain.documents import read_document
from mtrain.report.run_page import METRICS, template
from mtrain.runs import Run

AGAIN = "`mtrain influence` makes it again"
BEST = 3  # smallest losses that the terminal shows


def documents(run: Run) -> list[dict[str, Any]]:
    """All estimates of the run, and of the runs beside it, each with its `file`.

    Raises:
        RunError: one of them is damaged.
    """
    paths = sorted(run.path.parent.glob("*/influence/*.json"))
    found = [read_document(path, AGAIN) | {"file": str(path)} for path in paths]
    return [content for content in found if content.get("kind") == "influence"]


def write_page(run: Run) -> Path:
    """Write the page about all estimates of this folder of runs into the run's folder. Returns its path."""
    found = documents(run)
    names = sorted({row["task"] for one in found for row in one["sources"]})
    out = run.path / "influence" / "influence.html"
    page = template("influence.html", nats=_nats, span=_span, shade=_shade, metric=_metric, number=_number)
    largest = max((abs(row["theta"]) for one in found for row in one["sources"]), default=0.0)
    rows = [(name, [_cell(one, name) for one in found]) for name in names]
    write_text(out, page.render(found=found, rows=rows, largest=largest))
    return out


def lines(content: dict[str, Any]) -> Iterator[str]:
    """A line for each source, from the most helpful one; then what follows from them, and what it cost."""
    yield (
        f"{content['target']}: loss {content['loss']:.4f} nats with all {len(content['sources'])} source tasks; theta "
        "is by how much a source lowers it (above 0: the source helps)"
    )
    for row in sorted(content["sources"], key=lambda row: -row["theta"]):
        beside = [] if row["cosine"] is None else [f"cosine of gradients {row['cosine']:+.2f}"]
        beside += [f"{mode} alone {score:.4f}" for mode, score in sorted(row["single"].items())]
        beside += [f"{row['shared_groups']} groups shared"] if row.get("shared_groups") else []
        theta = f"theta {_nats(row['theta'])}{_span(row['interval'])}, {row['sign']}"
        yield f"  {row['task']}: {'; '.join([theta, *beside])}"
    yield f"to leave out: {', '.join(content['leave_out']) or 'none'}"
    for one in sorted(content["best"], key=lambda one: one["loss"])[:BEST]:
        yield f"  best {one['size']}: {', '.join(one['tasks'])} (loss {one['loss']:.4f})"
    cost = content["cost"]
    yield (
        f"cost: {cost['seconds']:.0f} s, {cost['forward']} forward and {cost['backward']} backward passes, "
        f"{cost['regressions']} regressions, {content['subsets']} subsets"
    )
    if content["verification"]:
        yield from _verified(content["verification"])
    yield from (f"note: {note}" for note in content["notes"])


def _verified(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"verified by {found['subsets']} trainings: rank correlation of estimate and truth "
        f"{_correlation(found['rank_correlation'])}; of the number of tasks and truth "
        f"{_correlation(found['size_correlation'])}"
    )
    yield (
        f"  signs right: {found['signs_right']} of {found['signs']}; of those that the trainings establish, "
        f"{found['sure_signs_right']} of {found['sure_signs']}"
    )


def _correlation(one: dict[str, Any]) -> str:
    return "not defined" if one["value"] is None else f"{one['value']:+.2f}{_span(one['interval'], '{:+.2f}')}"


def _cell(content: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What an estimate says of a source, with the truth where it was verified; None if it is no source of it."""
    row = next((row for row in content["sources"] if row["task"] == name), None)
    checked = (content["verification"] or {"sources": []})["sources"]
    return row and {**row, "checked": next((one for one in checked if one["task"] == name), None)}


def _nats(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _number(value: float | None, form: str = "{:+.2f}") -> str:
    return "–" if value is None else form.format(value).replace("-", "−")


def _span(interval: Sequence[float] | None, form: str = "{:+.4f}") -> str:
    edges = [] if interval is None else [form.format(edge).replace("-", "−") for edge in interval]
    return f" [{', '.join(edges)}]" if edges else ""


def _shade(row: dict[str, Any], largest: float) -> str:
    """The background of a cell: green helps, red harms, stronger for a larger theta; pale where the sign is unclear."""
    share = min(1.0, abs(row["theta"]) / largest) if largest else 0.0
    strength = round((10 + 50 * share) * (1 if row["sign"] != "unclear" else 0.4))
    colour = "#2a9d5c" if row["theta"] > 0 else "#d1495b"
    return f"background: color-mix(in srgb, {colour} {strength}%, transparent)"


def _metric(name: str) -> str:
    return METRICS.get(name, name)
