"""Reports a run: a self-contained HTML page, and its tables as Markdown.

The page shows the pool, the learning curves, and the transfers beside those of the ImageNet weights to the same task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from mtrain.atomic import write_text
from mtrain.data.pool import open_pool
from mtrain.data.task import Task
from mtrain.errors import ShardError, UsageError
from mtrain.model.names import remark
from mtrain.report.charts import line_chart
from mtrain.runs import Run
from mtrain.transfers.results import results

METRICS = {"accuracy": "accuracy", "roc_auc": "ROC AUC", "dice": "Dice", "f1": "F1"}
SETS = {"val": "validation", "test": "test", "cv": "cross-validation"}
BASELINE, OWN = "imagenet", "run"
SMALL = {"width": 320, "height": 170}


@dataclass(frozen=True)
class Comparison:
    """Transfers to one task in one mode, scored on one set.

    scores: weights ("run", "imagenet", ...) -> mean score over seeds, in 0..1; None if the metric is not defined.
    """

    task: str
    mode: str
    metric: str
    scored_on: str
    scores: dict[str, float | None]
    notes: tuple[str, ...]

    @property
    def gain(self) -> float | None:
        """The run's score minus the baseline's; None unless both exist."""
        own, baseline = self.scores.get(OWN), self.scores.get(BASELINE)
        return None if own is None or baseline is None else own - baseline


def write_report(run: Run, out: Path) -> tuple[Path, str]:
    """Write the page to `out`, and the tables to the same name with `.md`. Returns the page's path and the tables."""
    config, events = run.config(), run.events()
    tasks, missing = _tasks(Path(config.shards))
    left_out = set(run.left_out())
    comparisons = compare(results(run))
    state, iteration = run.state()
    tables = "\n".join(
        [
            f"# {run.name}",
            "",
            *_markdown_pool(tasks, _uses(run, tasks), missing),
            "",
            *_markdown_transfers(comparisons),
            "",
        ]
    )
    page = template("report.html").render(
        run=run.name,
        state=state,
        iteration=iteration,
        remark=remark(config.backbone),
        config=sorted(config.model_dump().items()),
        versions=sorted(run.about().get("versions", {}).items()),
        tasks=tasks,
        use=_uses(run, tasks),
        missing=missing,
        left_out=left_out,
        loss=line_chart("Training loss", curve(events, "loss")),
        task_losses=_task_charts("loss", task_curves(events, "step", ("tasks", "task_loss"))),
        accuracies=_task_charts("accuracy", task_curves(events, "validation", ("accuracy", "tasks"))),
        comparisons=comparisons,
        others=_other_weights(comparisons),
        notes=list(dict.fromkeys(f"{c.task}: {note}" for c in comparisons for note in c.notes)),
    )
    write_text(out, page)
    write_text(out.with_suffix(".md"), tables)
    return out, tables


def compare(found: Iterable[dict[str, Any]]) -> list[Comparison]:
    """Group the results of transfers by task, mode, scored set and metric."""
    by_case: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for result in _with_unique_names(list(found)):
        by_case.setdefault((result["task"], result["mode"], result["set"], result["metric"]), []).append(result)
    return [
        Comparison(
            task=task,
            mode=mode,
            metric=METRICS.get(metric, metric),
            scored_on=SETS.get(scored_on, scored_on),
            scores={weights: _mean(same, weights) for weights in dict.fromkeys(r["weights"] for r in same)},
            notes=tuple(dict.fromkeys(note for r in same for note in r["notes"])),
        )
        for (task, mode, scored_on, metric), same in sorted(by_case.items())
    ]


def _with_unique_names(results: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The results, with different names for different networks: the same file may have held several."""
    digests: dict[str, set[str]] = {}
    for result in results:
        digests.setdefault(result["weights"], set()).add(_digest(result))
    for result in results:
        several = result["weights"] not in (OWN, BASELINE, "random") and len(digests[result["weights"]]) > 1
        yield result | {"weights": f"{result['weights']} ({_digest(result)})"} if several else result


def _digest(result: Mapping[str, Any]) -> str:
    return str(result.get("identity", {}).get("weights_digest", ""))[:8]


def _mean(results: Iterable[dict[str, Any]], weights: str) -> float | None:
    scores = [r["score"] for r in results if r["weights"] == weights and r["score"] is not None]
    return sum(scores) / len(scores) if scores else None


def curve(events: Iterable[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """(iteration, value) of the training steps."""
    return [(e["iteration"], e[name]) for e in events if e["event"] == "step" and isinstance(e.get(name), float)]


def task_curves(
    events: Iterable[dict[str, Any]], kind: str, fields: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
    """Task -> (iteration, value), from the first of `fields` that an event has; of several values, the accuracy."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for event in events:
        if event["event"] != kind:
            continue
        values: dict[str, Any] = next((event[field] for field in fields if isinstance(event.get(field), dict)), {})
        for task, value in values.items():
            number = value.get("accuracy") if isinstance(value, dict) else value
            if isinstance(number, float):
                curves.setdefault(task, []).append((event["iteration"], number))
    return dict(sorted(curves.items()))


def _tasks(shards: Path) -> tuple[list[Task], str]:
    """All tasks of the pool, including those left out; an error text if the shards cannot be read any more."""
    try:
        return list(open_pool(shards).tasks), ""
    except (ShardError, UsageError) as error:
        return [], str(error)


def _task_charts(what: str, curves: dict[str, list[tuple[float, float]]]) -> list[tuple[str, str]]:
    return [(task, line_chart(f"{task}, {what}", points, **SMALL)) for task, points in curves.items()]


def _other_weights(comparisons: Iterable[Comparison]) -> dict[str, str]:
    """Other weights -> their name: that of the file without its folder, if it is unique."""
    others = sorted({weights for c in comparisons for weights in c.scores} - {OWN, BASELINE})
    names = [Path(weights).name for weights in others]
    return {w: name if names.count(name) == 1 else w for w, name in zip(others, names, strict=True)}


def _uses(run: Run, tasks: Sequence[Task]) -> dict[str, str]:
    """Task -> its use in the run."""
    trained, left_out = run.trained_on(), set(run.left_out())
    uses = {name: f"trained on {' + '.join(sets)}" for name, sets in trained.items()} | dict.fromkeys(
        left_out, "left out"
    )
    other = "not in this run" if trained else "trained on train"  # runs of old versions do not record their pool
    return {task.name: uses.get(task.name, other) for task in tasks}


def _markdown_pool(tasks: Sequence[Task], uses: Mapping[str, str], missing: str) -> list[str]:
    if missing:
        return [f"The tasks cannot be listed: {_cell(missing)}"]
    lines = ["| task | use | classes | train | val | test | licence |", "|---|---|---:|---:|---:|---:|---|"]
    for task in tasks:
        sizes = " | ".join(str(size) for size in task.sizes.values())
        what = f"{_cell(task.name)} | {uses[task.name]} | {task.num_classes}"
        lines.append(f"| {what} | {sizes} | {_cell(task.card.licence.name)} |")
    return lines


def _markdown_transfers(comparisons: Sequence[Comparison]) -> list[str]:
    if not comparisons:
        return ["No transfer scores yet: run `mtrain transfer --mode svm`."]
    others = _other_weights(comparisons)
    head = ["task", "mode", "metric", "scored on", "multi-task", "ImageNet", "difference", *map(_cell, others.values())]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|" + "---:|" * (len(head) - 4)]
    for c in comparisons:
        scores = [percent(c.scores.get(OWN)), percent(c.scores.get(BASELINE)), points(c.gain)]
        cells = [_cell(c.task), c.mode, c.metric, c.scored_on, *scores, *(percent(c.scores.get(w)) for w in others)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def percent(score: float | None) -> str:
    """0.9012 -> 90.12, as in the paper's tables; a dash if there is no score."""
    return "–" if score is None or score != score else f"{100 * score:.2f}"


def points(gain: float | None) -> str:
    """A difference of scores in percentage points, with its sign."""
    return "–" if gain is None or gain != gain else f"{100 * gain:+.2f}".replace("-", "−")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def template(name: str, **filters: Callable[..., object]) -> jinja2.Template:
    """A template of this package, with the filters `percent`, `points` and those given."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mtrain.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"percent": percent, "points": points} | filters
    return environment.get_template(name)
