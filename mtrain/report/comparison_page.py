"""A comparison of networks on one page, and in lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtrain.atomic import write_text
from mtrain.report.run_page import METRICS, SETS, template


def write_page(content: dict[str, Any], out: Path) -> Path:
    """Write the page of what mtrain.evaluation.comparison.compare gives."""
    page = template("comparison.html", span=_span, metric=_metric, rank=_rank, size=_size, times=_times, mib=_mib)
    scores = [one for network in content["networks"] for one in network["scores"].values() if one]
    some, of_differences = (any(one.get(name) for one in scores) for name in ("interval", "difference_interval"))
    intervals = " with 95 % intervals by the bootstrap over groups" if some else ""
    differences = ", their intervals on the same groups" if of_differences else ""
    write_text(out, page.render(**content, sets=_sets(content), intervals=intervals, differences=differences))
    return out


def lines(content: dict[str, Any]) -> Iterator[str]:
    """One a network and task, then one a network with its rank and cost."""
    for task in content["tasks"]:
        for network in content["networks"]:
            if (one := network["scores"][task["name"]]) is not None:
                yield f"{task['name']}: {network['name']}: {task['metric']} {_score(one)}"
    for network in content["networks"]:
        cost = network["cost"]
        rank = f"mean rank {_rank(network['mean_rank'])}{_span(network['rank_interval'], '{:.2f}')}"
        taken = f"{_size(cost['parameters'])} parameters, {_times(cost['milliseconds'])} ms an image"
        memory = "" if cost["mib_image"] is None else f", {_mib(cost['mib_image'])} MiB an image"
        yield f"{network['name']}: {rank}, {taken}{memory} ({cost['device']})"
    yield from (f"note: {note}" for note in content["notes"])


def _score(one: dict[str, Any]) -> str:
    if one["score"] is None:
        return "not defined"
    found = f"{one['score']:.4f}{_span(one['interval'], '{:.4f}')}"
    if "difference" not in one:
        return found
    return f"{found}, {one['difference']:+.4f}{_span(one.get('difference_interval'), '{:+.4f}')}"


def _sets(content: dict[str, Any]) -> dict[str, str]:
    """Task -> what it was scored on, in words."""
    return {
        task["name"]: ", ".join(
            dict.fromkeys(
                SETS.get(one["set"], one["set"])
                for network in content["networks"]
                if (one := network["scores"][task["name"]])
            )
        )
        for task in content["tasks"]
    }


def _span(interval: tuple[float, float] | None, form: str = "{:.1f}", scale: float = 1.0) -> str:
    return "" if interval is None else " [" + ", ".join(form.format(scale * edge) for edge in interval) + "]"


def _metric(name: str) -> str:
    return METRICS.get(name, name)


def _rank(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _size(parameters: int) -> str:
    return f"{parameters / 1e9:.2f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"


def _times(milliseconds: float) -> str:
    return f"{milliseconds:.3g}"


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
