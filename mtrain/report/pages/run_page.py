"""Reports a run: a self-contained HTML page, and its tables as Markdown.

The page shows the pool, the learning curves, and the transfers beside those of the baseline to the same task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.data.pool import open_pool
from mtrain.data.task import Task
from mtrain.disk.atomic import write_text
from mtrain.errors import ShardError, UsageError
from mtrain.evaluation.comparing.comparisons import (
    BASELINES,
    DIGEST,
    OWN,
    Comparison,
    baseline_of,
    compare,
    other_weights,
    start_of,
    titles_of,
)
from mtrain.evaluation.comparing.eva_scores import beside_published
from mtrain.evaluation.comparing.paired import Interval
from mtrain.evaluation.robustness_results import column_of
from mtrain.evaluation.robustness_results import results as robustness_results
from mtrain.model.network_names import remark
from mtrain.report.charts import Dot, Points, dots, has_mean, in_words, inline, intervals_of, learning_curve
from mtrain.report.colour_notes import colour_notes
from mtrain.report.cosines import cosines_in
from mtrain.report.cost import cost
from mtrain.report.details import details, markdown_errors
from mtrain.report.figures import minus
from mtrain.report.pages import run_markdown
from mtrain.report.pages.page import template
from mtrain.report.pages.run_markdown import caption
from mtrain.runs.belonging import check_weights
from mtrain.runs.run_folder import SOUP, Run
from mtrain.transfers.results import results_with_answers


def write_report(
    run: Run, out: Path, shards: Path | None = None, *, paper: bool = False, report: Reporter | None = None
) -> tuple[Path, str]:
    """Write the page to `out`, and the tables to the same name with `.md`. Returns the page's path and the tables.

    shards: folder of the tasks, if it is no longer that of the run.
    paper: also show the scores that kaiko-eva published for the same tasks, sets and recipe.

    Raises:
        RunError: a file of the run is damaged, or of another run.
    """
    check_weights(run)
    config, events = run.config(), run.events()
    found = results_with_answers(run, (report or Reporter()).note)
    tasks, missing = _tasks(shards or Path(config.shards))
    comparisons = compare(found, start_of(run))
    published = beside_published(comparisons, report) if paper else []
    titles = titles_of(comparisons)
    known = {task.name: task for task in tasks}
    robust = [(_network(one["weights"]), one) for one in robustness_results(run)]
    sections = [
        details(c, number, titles, _class_names(c, known.get(c.task))) for number, c in enumerate(comparisons, start=1)
    ]
    elsewhere = list(_of_other_shards([*found, *(one for _, one in robust)], tasks))
    for note in elsewhere:
        (report or Reporter()).note(note)
    about = comparisons, published, robust, markdown_errors(sections)
    tables = run_markdown.tables(run.name, tasks, _uses(run, tasks), missing, *about)
    page = template("report.html").render(
        **_of_run(run, config),
        **_of_pool(run, tasks, missing),
        **_of_training(config, events),
        **_of_comparisons(comparisons, titles),
        cost=cost(config, events, found),
        robustness_rows=robust,
        by=robust[0][1]["by"] if len({one["by"] for _, one in robust}) == 1 else "origin",
        published=published,
        sections=[section for section in sections if section is not None],
        notes=[
            *_notes(comparisons, robust),
            *colour_notes(run, tasks, {c.task for c in comparisons}),
            *elsewhere,
        ],
    )
    write_text(out, page)
    write_text(out.with_suffix(".md"), tables)
    return out, tables


def _of_run(run: Run, config: FitConfig) -> dict[str, Any]:
    """What the page says of the run, its network and its settings."""
    state, iteration = run.state()
    return {
        "run": run.name,
        "soup": run.about().get(SOUP, {}).get("text", ""),
        "state": state,
        "iteration": iteration,
        "remark": remark(config.backbone),
        "backbone": config.backbone,
        "size": config.size,
        "weights": config.weights,
        "config": sorted(config.model_dump().items()),
        "versions": sorted(run.about().get("versions", {}).items()),
    }


def _of_pool(run: Run, tasks: Sequence[Task], missing: str) -> dict[str, Any]:
    """What the page says of the tasks, or why they cannot be listed."""
    return {"tasks": tasks, "use": _uses(run, tasks), "missing": missing, "left_out": set(run.left_out())}


def _of_training(config: FitConfig, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The curves of the training: losses, accuracies, and the cosines between the gradients of tasks."""
    losses, gradients = curve(events, "loss"), cosines_in(events)
    cosines = gradients.means if gradients else []
    return {
        "loss_note": _loss_note(config),
        "mean_of_loss": has_mean(losses),
        "loss": _learning_curve("Training loss", losses, "loss", "loss"),
        "task_losses": _task_charts("loss", task_curves(events, "step", ("tasks", "task_loss"))),
        "accuracies": _task_charts("accuracy", task_curves(events, "validation", ("accuracy", "tasks"))),
        "gradients": gradients,
        "mean_of_cosine": gradients is not None and has_mean(cosines),
        "cosine_curve": _learning_curve("Mean cosine", cosines, "mean cosine", "cosines") if gradients else "",
    }


def _of_comparisons(comparisons: Sequence[Comparison], titles: Mapping[str, str]) -> dict[str, Any]:
    """The scores of the run beside those of its baseline and of other weights."""
    return {
        "comparisons": comparisons,
        "caption": caption(comparisons),
        "figures": _score_figures(comparisons, titles),
        "others": other_weights(comparisons),
        "baseline": baseline_of(comparisons),
        "titles": titles,
        "own": OWN,
    }


def _loss_note(config: FitConfig) -> str:
    """What the points of the curves of losses are."""
    scaled = ", divided by the logarithm of its number of classes: a guess costs 1" if config.scales_losses else ""
    dense = " The losses of masks and points are added to it." if config.dense else ""
    return (
        "Each point is the mean over the samples since the previous point. The loss of a task with one class per image "
        f"is the cross-entropy in nats{scaled}.{dense}"
    )


def _notes(comparisons: Iterable[Comparison], robust: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    found = [f"{c.task}: {note}" for c in comparisons for note in c.notes]
    found += [f"{one['task']}, robustness by {column_of(one)}: {note}" for _, one in robust for note in one["notes"]]
    return list(dict.fromkeys(found))


def _class_names(c: Comparison, task: Task | None) -> Sequence[str] | None:
    """The names of the classes; None unless the results, which have numbers alone, are of the shards of the task."""
    if task is None or any(_is_stale(one, task) for same in c.results.values() for one in same):
        return None
    return task.classes


def _is_stale(result: Mapping[str, Any], task: Task) -> bool:
    digest = result.get("identity", {}).get(DIGEST, task.card.digest)
    return bool(digest != task.card.digest)


def _of_other_shards(results: Iterable[Mapping[str, Any]], tasks: Iterable[Task]) -> Iterator[str]:
    """A note on each task that has been converted anew since some of its results, which stay on the page."""
    now, stale = {task.name: task for task in tasks}, dict[str, dict[str, None]]()
    for one in results:
        if one["task"] in now and _is_stale(one, now[one["task"]]):
            stale.setdefault(one["task"], {})[one.get("mode", "robustness")] = None
    for name, modes in stale.items():
        yield f"{name}: not of the shards that are there now: {', '.join(modes)}; run them again to replace them"


def _network(weights: str) -> str:
    return ({OWN: "multi-task"} | BASELINES).get(weights, Path(weights).name)


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


def _in_order(c: Comparison) -> list[str]:
    """The weights that have a score: the run, its baseline, others."""
    found = [weights for weights, score in c.scores.items() if score is not None]
    return sorted(found, key=lambda one: (one != OWN, one != c.baseline, one))


def _dot(c: Comparison, weights: str) -> Dot:
    return Dot(100 * (c.scores[weights] or 0.0), _scaled(c.interval(weights)))


def _scaled(interval: Interval | None) -> Interval | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def _case(c: Comparison) -> str:
    return f"{c.task} ({c.how}, {c.metric}, {c.scored_on})"


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
