"""Reports a run: a self-contained HTML page, and its tables as Markdown.

The page shows the pool, the learning curves, and the transfers beside those of the baseline to the same task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from dpconvert.runtime.progress import Reporter
from mtrain.atomic import write_text
from mtrain.data.pool import open_pool
from mtrain.data.task import Task
from mtrain.errors import ShardError, UsageError
from mtrain.evaluation.comparisons import (
    BASELINES,
    METRICS,
    OWN,
    SETS,
    Comparison,
    baseline_of,
    compare,
    other_weights,
    start_of,
    titles_of,
)
from mtrain.evaluation.eva_scores import Beside, beside_published
from mtrain.evaluation.paired import Interval
from mtrain.evaluation.robustness_results import column_of
from mtrain.evaluation.robustness_results import results as robustness_results
from mtrain.model.names import remark
from mtrain.report.charts import WITH, Dot, Points, dots, in_words, inline, intervals_of, learning_curve
from mtrain.report.cost import cost
from mtrain.report.details import details, markdown_errors
from mtrain.report.figures import minus
from mtrain.runs import Run
from mtrain.transfers.results import results_with_answers

__all__ = ["METRICS", "SETS", "compare", "curve", "percent", "points", "task_curves", "template", "write_report"]
UNDIVIDED = 18  # characters of a name that stays in one line


def write_report(
    run: Run, out: Path, shards: Path | None = None, *, paper: bool = False, report: Reporter | None = None
) -> tuple[Path, str]:
    """Write the page to `out`, and the tables to the same name with `.md`. Returns the page's path and the tables.

    shards: folder of the tasks, if it is no longer that of the run.
    paper: also show the scores that kaiko-eva published for the same tasks, sets and recipe.
    """
    config, events = run.config(), run.events()
    found = results_with_answers(run, (report or Reporter()).note)
    tasks, missing = _tasks(shards or Path(config.shards))
    comparisons = compare(found, start_of(run))
    published = beside_published(comparisons, report) if paper else []
    titles = titles_of(comparisons)
    classes = {task.name: task.classes for task in tasks}
    robust = [(_network(one["weights"]), one) for one in robustness_results(run)]
    sections = [details(c, number, titles, classes.get(c.task)) for number, c in enumerate(comparisons, start=1)]
    state, iteration = run.state()
    tables = "\n".join(
        [
            f"# {run.name}",
            "",
            *_markdown_pool(tasks, _uses(run, tasks), missing),
            "",
            *_markdown_transfers(comparisons),
            "",
            *markdown_errors(sections),
            *_markdown_published(published),
            *_markdown_robustness(robust),
        ]
    )
    page = template("report.html").render(
        run=run.name,
        state=state,
        iteration=iteration,
        remark=remark(config.backbone),
        backbone=config.backbone,
        size=config.size,
        weights=config.weights,
        cost=cost(config, events, found),
        config=sorted(config.model_dump().items()),
        versions=sorted(run.about().get("versions", {}).items()),
        tasks=tasks,
        use=_uses(run, tasks),
        missing=missing,
        left_out=set(run.left_out()),
        loss=_learning_curve("Training loss", curve(events, "loss"), "loss", "loss"),
        task_losses=_task_charts("loss", task_curves(events, "step", ("tasks", "task_loss"))),
        accuracies=_task_charts("accuracy", task_curves(events, "validation", ("accuracy", "tasks"))),
        comparisons=comparisons,
        caption=caption(comparisons),
        figures=_score_figures(comparisons, titles),
        robustness_rows=robust,
        by=robust[0][1]["by"] if len({one["by"] for _, one in robust}) == 1 else "origin",
        published=published,
        sections=[section for section in sections if section is not None],
        others=other_weights(comparisons),
        baseline=baseline_of(comparisons),
        titles=titles,
        own=OWN,
        notes=_notes(comparisons, robust),
    )
    write_text(out, page)
    write_text(out.with_suffix(".md"), tables)
    return out, tables


def _notes(comparisons: Iterable[Comparison], robust: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    found = [f"{c.task}: {note}" for c in comparisons for note in c.notes]
    found += [f"{one['task']}, robustness by {column_of(one)}: {note}" for _, one in robust for note in one["notes"]]
    return list(dict.fromkeys(found))


def _network(weights: str) -> str:
    return ({OWN: "multi-task"} | BASELINES).get(weights, Path(weights).name)


def _markdown_robustness(robust: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    lines = [
        f"| {_cell(one['task'])} | {_cell(network)} | {_cell(column_of(one))} | {one['k']} | "
        f"{percent(one['index'])}{span(one['interval'])} | {percent(one['chance'])} |"
        for network, one in robust
    ]
    head = ["| task | network | by | k | robustness index | by chance |", "|---|---|---|---:|---:|---:|"]
    return [*head, *lines, ""] if lines else []


def _markdown_published(tables: Iterable[Beside]) -> list[str]:
    lines = []
    for one in tables:
        lines += [f"{one.title}, beside {one.published.source} ({one.published.url}):", ""]
        lines += ["| network | score | from |", "|---|---:|---|"]
        rows = [(_cell(name), percent(score), "published" if told else "here") for name, score, told in one.rows]
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    return lines


def _score_figures(comparisons: Sequence[Comparison], titles: Mapping[str, str]) -> list[tuple[str, str]]:
    """(caption, element): the scores of all networks, and the differences from the baseline, with their intervals."""
    scores = [(_case(c), {titles[w]: _dot(c, w) for w in _in_order(c)}) for c in comparisons]
    gains = [
        (_case(c), {titles[OWN]: Dot(100 * c.gain, _scaled(c.gain_interval))})
        for c in comparisons
        if c.gain is not None
    ]
    baseline = BASELINES[baseline_of(comparisons)]
    drawn = [
        (f"Scores{intervals_of(scores)}", [row for row in scores if row[1]], "score, percent", False, "scores"),
        (
            f"Multi-task minus {baseline}{intervals_of(gains, ' on the same groups')}",
            gains,
            minus(baseline),
            True,
            "differences",
        ),
    ]
    return [
        (caption, inline(dots(rows, label, zero=zero), f"{caption}. {_rows_in_words(rows)}", name))
        for caption, rows, label, zero, name in drawn
        if rows
    ]


def caption(comparisons: Sequence[Comparison]) -> str:
    """The caption of the table of scores, which names intervals where the table has some."""
    intervals = any(c.interval(weights) for c in comparisons for weights in c.results)
    differences = "; its interval is of the same groups" if any(c.gain_interval for c in comparisons) else ""
    baseline = BASELINES[baseline_of(comparisons)]
    return (
        f"Scores in percent{f'{WITH} by the bootstrap over groups (patients or slides)' if intervals else ''}. "
        f"The difference is multi-task minus {baseline}, in percentage points{differences}. The paper's rule: the "
        "difference exceeds twice the larger standard deviation over seeds; it is undefined below two seeds."
    )


def _in_order(c: Comparison) -> list[str]:
    """The weights that have a score: the run, its baseline, others."""
    found = [weights for weights, score in c.scores.items() if score is not None]
    return sorted(found, key=lambda one: (one != OWN, one != c.baseline, one))


def _dot(c: Comparison, weights: str) -> Dot:
    return Dot(100 * (c.scores[weights] or 0.0), _scaled(c.interval(weights)))


def _scaled(interval: Interval | None) -> Interval | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def _case(c: Comparison) -> str:
    return f"{c.task} ({c.mode}, {c.metric}, {c.scored_on})"


def _rows_in_words(rows: Iterable[tuple[str, Mapping[str, Dot]]]) -> str:
    return "; ".join(f"{title}: " + ", ".join(f"{n} {d.value:.1f}" for n, d in row.items()) for title, row in rows)


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


def _learning_curve(title: str, points: Points, label: str, name: str, *, small: bool = False) -> str:
    figure = learning_curve(points, label, small=small)
    return "" if figure is None else inline(figure, in_words(title, points), name)


def _task_charts(what: str, curves: dict[str, list[tuple[float, float]]]) -> list[tuple[str, str]]:
    return [
        (task, _learning_curve(f"{task}, {what}", points, what, f"{what}-{number}", small=True))
        for number, (task, points) in enumerate(curves.items())
    ]


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
        what = f"{_cell(task.name)} | {uses[task.name]} | {task.num_classes if task.target != 'value' else 'a number'}"
        lines.append(f"| {what} | {sizes} | {_cell(task.card.licence.name)} |")
    return lines


def _markdown_transfers(comparisons: Sequence[Comparison]) -> list[str]:
    if not comparisons:
        return ["No transfer scores yet: run `mtrain transfer --mode svm`."]
    others = other_weights(comparisons)
    titles = list(titles_of(comparisons).values())
    names = ["samples (groups)", *titles[:2], "difference", "paper's rule", *map(_cell, titles[2:])]
    head = ["task", "mode", "metric", "scored on", *names]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|" + "---:|" * (len(head) - 4)]
    for c in comparisons:
        difference = points(c.gain) + span(c.gain_interval, signed=True) if c.gain is not None else "not available"
        scores = [_sizes(c), _score(c, OWN), _score(c, c.baseline), difference, c.verdict]
        cells = [_cell(c.task), c.mode, c.metric, c.scored_on, *scores, *(_score(c, w) for w in others)]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", caption(comparisons)]


def _score(c: Comparison, weights: str) -> str:
    score = c.scores.get(weights)
    return c.missing(weights) if score is None else percent(score) + span(c.interval(weights))


def _sizes(c: Comparison) -> str:
    groups = f" ({c.groups})" if c.groups else ""
    return f"{c.samples or 'not stated'}{groups}"


def percent(score: float | None) -> str:
    """0.9012 -> 90.12, as in the paper's tables; a dash if there is no score."""
    return "–" if score is None or score != score else f"{100 * score:.2f}"


def points(gain: float | None) -> str:
    """A difference of scores in percentage points, with its sign."""
    return "–" if gain is None or gain != gain else f"{100 * gain:+.2f}".replace("-", "−")


def span(interval: Interval | None, *, signed: bool = False) -> str:
    """An interval in percent, after a space: ' [80.1, 92.3]'; nothing where there is none."""
    if interval is None:
        return ""
    low, high = (f"{100 * edge:+.1f}" if signed else f"{100 * edge:.1f}" for edge in interval)
    return f" [{low}, {high}]".replace("-", "−")


def breakable(name: str) -> Markup:
    """A long name, which may be divided between its words but nowhere else."""
    if len(name) <= UNDIVIDED:
        return escape(name)
    return Markup("<wbr>").join(re.split(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[_/.-])", name))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def template(name: str, **filters: Callable[..., object]) -> jinja2.Template:
    """A template of this package, with the filters percent, points, span, bracketed, breakable, column and those given.

    `bracketed` is the same as `span`, which some pages define anew.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mtrain.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    known = {"percent": percent, "points": points, "span": span, "bracketed": span, "breakable": breakable}
    environment.filters |= known | {"column": column_of} | filters
    return environment.get_template(name)
