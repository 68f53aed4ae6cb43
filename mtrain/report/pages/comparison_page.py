"""A comparison of networks on one page, and in lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dpconvert.plural import counted
from mtrain.disk.atomic import write_text
from mtrain.evaluation.comparing.comparisons import SETS
from mtrain.evaluation.comparing.eva_scores import ranked
from mtrain.report.charts import Dot, dots, inline, intervals_of
from mtrain.report.details import SCORES
from mtrain.report.pages.page import template, with_minus
from mtrain.scoring.effects import effect, effects
from mtrain.scoring.metrics import BESIDES, METRICS


def write_page(content: dict[str, Any], out: Path) -> Path:
    """Write the page of what mtrain.evaluation.comparing.comparison.compare gives."""
    page = template(
        "comparison.html", span=with_minus(_span), metric=_metric, rank=_rank, size=_size, times=_times, mib=_mib
    )
    rows = [(network, one) for network, tasks in content["robustness"].items() for one in tasks.values()]
    scores = [one for network in content["networks"] for one in network["scores"].values() if one]
    some, of_differences = (any(one.get(name) for one in scores) for name in ("interval", "difference_interval"))
    more = {
        "robustness_rows": rows,
        "others": _others(content),
        "by": rows[0][1]["by"] if rows else "",
        "sets": _sets(content),
        "figures": _figures(content),
        "published": _published(content),
        "intervals": " with 95% intervals by the bootstrap over groups" if some else "",
        "differences": ", their intervals on the same groups" if of_differences else "",
    }
    write_text(out, page.render(**content, **more))
    return out


def _figures(content: dict[str, Any]) -> list[tuple[str, str]]:
    """(caption, element): the scores of the networks, and their differences from the first, with their intervals."""
    scores = [(_case(task), _dots(content, task, "score", "interval")) for task in content["tasks"]]
    apart = [(_case(task), _dots(content, task, "difference", "difference_interval")) for task in content["tasks"]]
    reference, names = content["reference"], [network["name"] for network in content["networks"]]
    title = f"Differences from {reference}{intervals_of(apart, ' on the same groups')}"
    drawn = [
        (f"Scores{intervals_of(scores)}", scores, "score, percent", False, "scores"),
        (title, apart, "percentage points", True, "differences"),
    ]
    return [
        (caption, inline(dots(rows, label, zero=zero, series=names), f"{caption}. {_in_words(rows)}", name))
        for caption, every, label, zero, name in drawn
        if (rows := [row for row in every if row[1]])
    ]


def _case(task: dict[str, Any]) -> str:
    return f"{task['name']} ({_metric(task['metric'])})"


def _dots(content: dict[str, Any], task: dict[str, Any], value: str, interval: str) -> dict[str, Dot]:
    """Network -> its value on this task in percent, where it has one."""
    found = {network["name"]: network["scores"][task["name"]] for network in content["networks"]}
    known = {name: one for name, one in found.items() if one is not None and one.get(value) is not None}
    return {name: Dot(100 * one[value], _percent(one.get(interval))) for name, one in known.items()}


def _percent(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def _in_words(rows: Iterable[tuple[str, dict[str, Dot]]]) -> str:
    return "; ".join(f"{title}: " + ", ".join(f"{n} {d.value:.1f}" for n, d in row.items()) for title, row in rows)


def _published(content: dict[str, Any]) -> list[tuple[str, list[tuple[str, float, bool]], dict[str, Any]]]:
    """(title, rows of network, score and whether it is published, source) of each task with published scores."""
    found = []
    for task in content["tasks"]:
        if "published" in task:
            own = {network["name"]: network["scores"][task["name"]] for network in content["networks"]}
            known = {name: one["score"] for name, one in own.items() if one and one["score"] is not None}
            title = f"{task['name']}, {', '.join(SETS.get(one, one) for one in task['sets'])}"
            found.append((title, ranked(known, task["published"]["scores"]), task["published"]))
    return found


def lines(content: dict[str, Any]) -> Iterator[str]:
    """One a network and task, then one a network with its rank and cost."""
    for task in content["tasks"]:
        for network in content["networks"]:
            if (one := network["scores"][task["name"]]) is not None:
                yield f"{task['name']}: {network['name']}: {_metric(task['metric'])} {_score(one)}"
                others = one.get("others", {}).items()
                yield from (f"  {BESIDES.get(name, name)} {_plain(value)}" for name, value in others)
    for network in content["networks"]:
        cost = network["cost"]
        mean = network["mean_rank"]
        rank = "no mean rank" if mean is None else f"mean rank {mean:.2f}{_span(network['rank_interval'], '{:.2f}')}"
        taken = f"{_size(cost['parameters'])} parameters, {_times(cost['milliseconds'])} ms per image"
        memory = "" if cost["mib_image"] is None else f", {_mib(cost['mib_image'])} MiB per image"
        yield f"{network['name']}: {rank}, {taken}{memory} ({cost['device']})"
    for network, tasks in content["robustness"].items():
        for task, one in tasks.items():
            index = "not defined" if one["index"] is None else f"{one['index']:.4f}{_span(one['interval'], '{:.4f}')}"
            yield f"{task}: {network}: robustness index {index} by {one['by']}, k = {one['k']}"
    for title, rows, source in _published(content):
        yield f"{title}, beside {source['source']} ({source['url']}):"
        yield from (f"  {score:.4f} {name}{' (published)' if published else ''}" for name, score, published in rows)
    yield from (f"note: {note}" for note in content["notes"])


def _others(content: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """(task, score, value of each network) of the further scores of masks, points and instances, in percent."""
    found: list[tuple[str, str, list[str]]] = []
    for task in content["tasks"]:
        each = [(network["scores"][task["name"]] or {}).get("others", {}) for network in content["networks"]]
        names = dict.fromkeys(name for one in each for name in one)
        found += [(task["name"], SCORES[name], [_plain(one.get(name), 100, ".1f") for one in each]) for name in names]
    return found


def _plain(value: float | None, scale: float = 1, form: str = ".4f") -> str:
    return "not defined" if value is None else f"{scale * value:{form}}"


def _score(one: dict[str, Any]) -> str:
    if one["score"] is None:
        return "not defined"
    found = f"{one['score']:.4f}{_span(one['interval'], '{:.4f}')}"
    if "deviation" in one:
        found += f" (mean of {one['runs']} runs, +- {one['deviation']:.4f})"
    if "difference" not in one:
        return found
    return f"{found}, difference {effect(one['difference'])}{effects(one.get('difference_interval'))}"


def _sets(content: dict[str, Any]) -> dict[str, str]:
    """Task -> what it was scored on, in words, with the numbers of samples and groups."""
    return {
        task["name"]: ", ".join(
            dict.fromkeys(_set(one) for network in content["networks"] if (one := network["scores"][task["name"]]))
        )
        for task in content["tasks"]
    }


def _set(score: dict[str, Any]) -> str:
    counts = [counted(score[f"{noun}s"], noun) for noun in ("sample", "group") if f"{noun}s" in score]
    return ", ".join([SETS.get(score["set"], score["set"]), *counts])


def _span(interval: tuple[float, float] | None, form: str = "{:.1f}", scale: float = 1.0) -> str:
    return "" if interval is None else " [" + ", ".join(form.format(scale * edge) for edge in interval) + "]"


def _metric(name: str) -> str:
    return METRICS.get(name, name)


def _rank(value: float | None) -> str:
    return "no score" if value is None else f"{value:.2f}"


def _size(parameters: int) -> str:
    return f"{parameters / 1e9:.2f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"


def _times(milliseconds: float) -> str:
    return f"{milliseconds:.3g}"


def _mib(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"
