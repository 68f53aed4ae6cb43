"""The tables of a run's page as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtrain.data.task import Task
from mtrain.evaluation.comparing.comparisons import BASELINES, OWN, Comparison, baseline_of, other_weights, titles_of
from mtrain.evaluation.comparing.eva_scores import Beside
from mtrain.evaluation.robustness_results import column_of
from mtrain.report.charts import WITH
from mtrain.report.pages.page import percent as plain_percent
from mtrain.report.pages.page import points, span, with_minus

percent = with_minus(plain_percent)


def tables(
    name: str,
    tasks: Sequence[Task],
    uses: Mapping[str, str],
    missing: str,
    comparisons: Sequence[Comparison],
    published: Iterable[Beside],
    robust: Iterable[tuple[str, dict[str, Any]]],
    errors: Iterable[str],
) -> str:
    """The pool, the transfers, published scores beside them, and the robustness of a run.

    uses: task -> its use. errors: lines about the errors of measured numbers.
    """
    return "\n".join(
        [
            f"# {name}",
            "",
            *_markdown_pool(tasks, uses, missing),
            "",
            *markdown_transfers(comparisons),
            "",
            *errors,
            *_markdown_published(published),
            *_markdown_robustness(robust),
        ]
    )


def _markdown_pool(tasks: Sequence[Task], uses: Mapping[str, str], missing: str) -> list[str]:
    if missing:
        return [f"The tasks cannot be listed: {_cell(missing)}"]
    lines = ["| task | use | classes | train | val | test | licence |", "|---|---|---:|---:|---:|---:|---|"]
    for task in tasks:
        sizes = " | ".join(str(size) for size in task.sizes.values())
        what = f"{_cell(task.name)} | {uses[task.name]} | {task.num_classes if task.target != 'value' else 'a number'}"
        lines.append(f"| {what} | {sizes} | {_cell(task.card.licence.name)} |")
    return lines


def markdown_transfers(comparisons: Sequence[Comparison]) -> list[str]:
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
        cells = [_cell(c.task), _cell(c.how), c.metric, c.scored_on, *scores, *(_score(c, w) for w in others)]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", caption(comparisons)]


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
        rows = [
            (_cell(name), percent(score), "published" if published else "here") for name, score, published in one.rows
        ]
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    return lines


def _score(c: Comparison, weights: str) -> str:
    score = c.scores.get(weights)
    return c.missing(weights) if score is None else percent(score) + span(c.interval(weights))


def _sizes(c: Comparison) -> str:
    groups = f" ({c.groups})" if c.groups else ""
    return f"{c.samples or 'not stated'}{groups}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def caption(comparisons: Sequence[Comparison]) -> str:
    """The caption of the table of scores, which names intervals where the table has some."""
    intervals = any(c.interval(weights) for c in comparisons for weights in c.results)
    differences = "; its interval is of the same groups" if any(c.gain_interval for c in comparisons) else ""
    baseline = BASELINES[baseline_of(comparisons)]
    return (
        f"Scores in percent{f'{WITH} by the bootstrap over groups (patients or slides)' if intervals else ''}. "
        f"The difference is multi-task minus {baseline}, in percentage points{differences}. The paper's rule: the "
        "difference exceeds twice the larger standard deviation over seeds; it is undefined below two seeds, "
        "and if all seeds score the same."
    )
