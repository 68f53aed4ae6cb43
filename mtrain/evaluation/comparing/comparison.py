"""Compares networks on tasks: scores, paired differences, ranks, time and memory in one table.

Each network is transferred to each task as by `mtrain transfer`; a mode of several runs has the mean of their scores.
Intervals come from a paired bootstrap over groups: in each draw, all networks are scored on the same groups of a task.
So they show how much a difference or a rank depends on the choice of patients. Differences are relative to the first
network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpconvert.runtime.progress import Reporter
from mtrain.data.sample_columns import ColumnRequest
from mtrain.data.task import Task
from mtrain.errors import UserError
from mtrain.evaluation.comparing.eva_scores import NONE, published_for
from mtrain.evaluation.comparing.inference_cost import Cost, cost
from mtrain.evaluation.comparing.paired import draws, kept_answers
from mtrain.evaluation.robustness_run import check_column, robustness_of
from mtrain.evaluation.selecting.ranks import mean_ranks, task_ranks
from mtrain.runs.run_folder import Run
from mtrain.scoring import bootstrap
from mtrain.scoring.metrics import Values
from mtrain.transfers.pretrained import Pretrained, TransferOptions
from mtrain.transfers.transfer import result_path, source_of, transfer_runs

SIZES_DIFFER = (
    "masks and points are scored at the input size of each network: differences between sizes have no interval"
)

OTHERS = ("iou", "f1", "pq", "aji")  # of --mode dense, beside the own metric of a task


@dataclass(frozen=True)
class ComparedNetwork:
    """A network to compare: that of a run, or one without a run (mtrain.runs.untrained.Start)."""

    name: str
    run: Run
    weights: str


@dataclass(frozen=True)
class Scored:
    """The score of one network on one task: the mean of its runs, and their deviation if there are several.

    answers: the file of predictions of each run, () if the mode writes none. others: further scores of masks, points
    and instances. counts: the numbers of scored samples and of their groups.
    """

    score: float | None
    interval: tuple[float, float] | None
    set: str
    answers: tuple[Path, ...]
    metric: str
    deviation: float | None = None
    others: dict[str, float | None] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def compare(
    entries: Sequence[ComparedNetwork],
    tasks: Sequence[Task],
    options: TransferOptions,
    report: Reporter,
    column: ColumnRequest | None = None,
    k: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The comparison as a JSON object, and the reasons for missing scores.

    column, k: also measure the robustness of the features to this column, with k neighbours.

    Raises:
        UserError: a network cannot be built or loaded, or no task has the column.
    """
    if column is not None:
        check_column(column, tasks)
    scores: dict[str, dict[str, Scored]] = {}
    costs: dict[str, Cost] = {}
    robust: dict[str, dict[str, dict[str, Any]]] = {}
    failures: list[str] = []
    notes: dict[str, list[tuple[str, str]]] = {}  # a note -> the networks and tasks that it is on
    for entry in entries:  # so that one network is in memory at a time
        source = source_of(entry.run, entry.weights)
        scores[entry.name] = {}
        for task in tasks:
            try:
                runs = transfer_runs(source, task, options, report)
            except UserError as error:
                failures.append(f"{entry.name} on {task.name}: {error}")
                continue
            _note(notes, (note for found in runs for note in found["notes"]), entry.name, task.name)
            scores[entry.name][task.name] = _scored(source, task, options, runs)
            if column is not None:
                with _gathered(failures, f"{entry.name} on {task.name}, {column.name}"):
                    of = robustness_of(source, task, column, k, options.workers, options.recipe.device, report)
                    robust.setdefault(entry.name, {})[task.name] = of
                    _note(notes, of["notes"], entry.name, task.name)
        costs[entry.name] = cost(source.network, entry.run.config().size, options.recipe.device)
    said = list(attributed(notes, [entry.name for entry in entries], [task.name for task in tasks]))
    if options.mode == "dense" and len({entry.run.config().size for entry in entries}) > 1:
        said.append(SIZES_DIFFER)
    if any(len(scored) < len(tasks) for scored in scores.values()):
        said.append("some scores are missing: the mean rank of a network is over the tasks on which it has one")
    return _content(entries, tasks, options.mode, scores, costs) | {
        "robustness": robust,
        "notes": said,
    }, failures


def _note(notes: dict[str, list[tuple[str, str]]], said: Iterable[str], network: str, task: str) -> None:
    """Add what a network's score on a task says."""
    for note in dict.fromkeys(said):
        notes.setdefault(note, []).append((network, task))


def attributed(
    notes: Mapping[str, Sequence[tuple[str, str]]], networks: Sequence[str], tasks: Sequence[str]
) -> Iterator[str]:
    """Each note with the tasks and networks that it is on, where these are not all."""
    for note, of in notes.items():
        alike: dict[tuple[str, ...], list[str]] = {}  # networks -> the tasks on which these, and no others, say it
        for task in tasks:
            if by := tuple(name for name in networks if (name, task) in of):
                alike.setdefault(by, []).append(task)
        for by, on in alike.items():
            which = ["" if len(on) == len(tasks) or all(task in note for task in on) else ", ".join(on)]
            which += ["" if len(by) == len(networks) else ", ".join(by)]
            yield ": ".join([*filter(None, which), note])


@contextmanager
def _gathered(failures: list[str], where: str) -> Iterator[None]:
    """Add a user's error to `failures`."""
    try:
        yield
    except UserError as error:
        failures.append(f"{where}: {error}")


def _scored(source: Pretrained, task: Task, options: TransferOptions, runs: Sequence[dict[str, Any]]) -> Scored:
    """The score of these runs; of several, the interval is that of their mean."""
    seeds = range(options.recipe.seed, options.recipe.seed + len(runs))
    each = (replace(options, recipe=replace(options.recipe, seed=seed)) for seed in seeds)
    paths = [result_path(source, task, one).with_suffix(".npz") for one in each]
    answers = tuple(paths) if all(path.is_file() for path in paths) else ()
    found, metric = runs[0], str(runs[0]["metric"])
    counts: dict[str, int] = {name: found[name] for name in ("samples", "groups") if name in found}
    bounds = found["intervals"].get(metric)
    interval = (bounds[0], bounds[1]) if bounds else None
    values = [one["score"] for one in runs if one["score"] is not None]
    if len(runs) == 1 or not values:
        others = {name: found["scores"][name] for name in OTHERS if name in found.get("scores", {}) and name != metric}
        return Scored(found["score"], interval, found["set"], answers, metric, others=others, counts=counts)
    drawn = draws({"": [one for path in answers if (one := kept_answers(path))]}, metric)
    interval = bootstrap.interval(drawn[""]) if drawn else None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Scored(float(np.mean(values)), interval, found["set"], answers, metric, deviation, counts=counts)


def _content(
    entries: Sequence[ComparedNetwork],
    tasks: Sequence[Task],
    mode: str,
    scores: dict[str, dict[str, Scored]],
    costs: dict[str, Cost],
) -> dict[str, Any]:
    names = [entry.name for entry in entries]
    of_task = {task.name: {name: scores[name].get(task.name) for name in names} for task in tasks}
    drawn = {task.name: draws_of(task, of_task[task.name]) for task in tasks}
    table = np.array([[_number(scores[name].get(task.name)) for task in tasks] for name in names])
    places = task_ranks(table)
    scored = [task.name for column, task in enumerate(tasks) if not np.isnan(table[:, column]).all()]
    means, intervals = mean_ranks(places), rank_intervals(names, {name: drawn[name] for name in scored})
    return {
        "mode": mode,
        "reference": names[0],
        "tasks": [_told_of(task, of_task[task.name]) for task in tasks],
        "networks": [
            {
                "name": entry.name,
                "weights": entry.weights,
                "size": entry.run.config().size,
                "mean_rank": _plain(means[row]),
                "rank_interval": intervals.get(entry.name),
                "cost": vars(costs[entry.name]),
                "scores": {
                    task.name: _versus(entry.name, names[0], scores, task, drawn[task.name], float(places[row, column]))
                    for column, task in enumerate(tasks)
                },
            }
            for row, entry in enumerate(entries)
        ],
    }


def draws_of(task: Task, scored: dict[str, Scored | None]) -> dict[str, Values]:
    """Network -> its score in each draw of groups, for networks with predictions for the same samples."""
    files = {name: one.answers for name, one in scored.items() if one is not None and one.answers}
    loaded = {name: [one for path in paths if (one := kept_answers(path))] for name, paths in files.items()}
    whole = {name: of for name, of in loaded.items() if len(of) == len(files[name])}
    return draws(whole, _metric(task, scored))


def _metric(task: Task, scored: dict[str, Scored | None]) -> str:
    return next((one.metric for one in scored.values() if one is not None), task.metric)


def _told_of(task: Task, scored: dict[str, Scored | None]) -> dict[str, Any]:
    """A task of the comparison."""
    sets = list(dict.fromkeys(one.set for one in scored.values() if one is not None))
    return {"name": task.name, "metric": _metric(task, scored), "split": task.card.split_policy, "sets": sets}


def beside_published(content: dict[str, Any], report: Reporter) -> None:
    """Add to each task the scores of others that are comparable, or note that there are none."""
    for task in content["tasks"]:
        result = {"mode": content["mode"], "split": task["split"], "task": task["name"]}
        found = next((one for name in task["sets"] if (one := published_for(result | {"set": name}))), None)
        if found is not None:
            task["published"] = {"source": found.source, "url": found.url, "scores": dict(found.scores)}
    if not any("published" in task for task in content["tasks"]):
        report.note(NONE)


def _versus(
    name: str, reference: str, scores: dict[str, dict[str, Scored]], task: Task, draws: dict[str, Values], rank: float
) -> dict[str, Any] | None:
    one, other = scores[name].get(task.name), scores[reference].get(task.name)
    if one is None:
        return None
    content: dict[str, Any] = {"score": one.score, "interval": one.interval, "set": one.set, "rank": _plain(rank)}
    content |= one.counts | ({"others": one.others} if one.others else {})
    if one.deviation is not None:
        content |= {"deviation": one.deviation, "runs": len(one.answers)}
    if name == reference or other is None or one.score is None or other.score is None:
        return content
    content["difference"] = one.score - other.score
    if name in draws and reference in draws:
        content["difference_interval"] = bootstrap.interval(draws[name] - draws[reference])
    return content


def rank_intervals(names: Sequence[str], draws: dict[str, dict[str, Values]]) -> dict[str, tuple[float, float] | None]:
    """Intervals of the mean rank of each network over these tasks; none unless all networks have draws on all of them,
    because the mean rank is over all tasks that have scores.
    """
    if not draws or not all(name in of for of in draws.values() for name in names):
        return {}
    drawn = [np.stack([of[name] for name in names])[:, _order(task, len(of[names[0]]))] for task, of in draws.items()]
    scores = np.stack(drawn, axis=-1)  # networks, draws, tasks
    ranks = task_ranks(np.moveaxis(scores, 1, 0))  # draws, networks, tasks
    means = ranks[~np.isnan(ranks).any(axis=(1, 2))].mean(axis=2)
    return {name: bootstrap.interval(means[:, row]) for row, name in enumerate(names)} if len(means) else {}


def _order(task: str, draws: int) -> NDArray[np.int64]:
    """An order of the draws of a task. Two tasks with as many groups have the same draws, which would rise and fall
    together; in separate orders they are independent.
    """
    seed = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8])
    return np.random.Generator(np.random.Philox(seed)).permutation(draws)


def _number(one: Scored | None) -> float:
    return float("nan") if one is None or one.score is None else one.score


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
