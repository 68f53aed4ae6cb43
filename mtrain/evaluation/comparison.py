"""Compares networks on tasks: scores, paired differences, ranks, time and memory in one table.

Each network is transferred to each task as by `mtrain transfer`. Intervals come from a paired bootstrap over groups: in
each draw, all networks are scored on the same groups of a task. So they show how much a difference or a rank depends on
the choice of patients. Differences are relative to the first network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpconvert.runtime.progress import Reporter
from mtrain.data.task import Task
from mtrain.errors import UserError
from mtrain.evaluation.ranks import mean_ranks, task_ranks
from mtrain.model.devices import find_device
from mtrain.model.network import SharedNetwork
from mtrain.runs import Run
from mtrain.scoring import bootstrap
from mtrain.scoring.metrics import Values
from mtrain.transfers.modes import TransferOptions
from mtrain.transfers.transfer import result_path, source_of, transfer

MIB = 2**20
BATCH = {"cuda": 32, "cpu": 4}  # batch size for timing
LEAST_SECONDS, MOST_PASSES = 0.5, 20


@dataclass(frozen=True)
class Entry:
    """A network to compare: that of a run, or one without a run (mtrain.runs.Start)."""

    name: str
    run: Run
    weights: str


@dataclass(frozen=True)
class Cost:
    """The cost of one image: milliseconds on this device, and on CUDA also MiB of memory in addition to the weights."""

    parameters: int
    features: int
    device: str
    milliseconds: float
    mib_weights: float
    mib_image: float | None


@dataclass(frozen=True)
class Scored:
    """The score of one network on one task. `answers`: the file of its predictions, if the mode writes one."""

    score: float | None
    interval: tuple[float, float] | None
    set: str
    answers: Path | None


def compare(
    entries: Sequence[Entry], tasks: Sequence[Task], options: TransferOptions, report: Reporter
) -> tuple[dict[str, Any], list[str]]:
    """The comparison as a JSON object, and the reasons for missing scores.

    Raises:
        UserError: a network cannot be built or loaded.
    """
    scores: dict[str, dict[str, Scored]] = {}
    costs: dict[str, Cost] = {}
    failures: list[str] = []
    notes: dict[str, None] = {}
    for entry in entries:  # so that one network is in memory at a time
        source = source_of(entry.run, entry.weights)
        scores[entry.name] = {}
        for task in tasks:
            try:
                found = transfer(source, task, options, report)
            except UserError as error:
                failures.append(f"{entry.name} on {task.name}: {error}")
                continue
            notes |= dict.fromkeys(found["notes"])
            answers = result_path(source, task, options).with_suffix(".npz")
            told = found["intervals"].get(found["metric"])
            scores[entry.name][task.name] = Scored(
                found["score"], tuple(told) if told else None, found["set"], answers if answers.is_file() else None
            )
        costs[entry.name] = cost(source.network, entry.run.config().size, options.recipe.device)
    return _content(entries, tasks, options.mode, scores, costs) | {"notes": list(notes)}, failures


@torch.inference_mode()
def cost(network: SharedNetwork, size: int, device: str = "auto") -> Cost:
    """Time and memory for features of images of `size` px in inference mode, computed as for transfers."""
    place = find_device(device)
    network = network.eval().to(place).to(memory_format=torch.channels_last)
    images = torch.zeros((BATCH[place.type], 3, size, size), dtype=torch.uint8, device=place)

    def run() -> None:
        network(network.normalize(images)).sum().item()  # .item() waits for the device

    run()
    before = _reset(place)
    seconds = _seconds(run)
    tensors = list(network.state_dict().values())
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MIB
    peak = (torch.cuda.max_memory_allocated(place) - before) / MIB / len(images) if place.type == "cuda" else None
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        features=network.num_features,
        device=torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu",
        milliseconds=1000 * seconds / len(images),
        mib_weights=weights,
        mib_image=peak,
    )


def _reset(place: torch.device) -> int:
    if place.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(place)
    return torch.cuda.memory_allocated(place)


def _seconds(run: Callable[[], None]) -> float:
    """The median time of several passes."""
    taken: list[float] = []
    while not taken or (sum(taken) < LEAST_SECONDS and len(taken) < MOST_PASSES):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))


def _content(
    entries: Sequence[Entry], tasks: Sequence[Task], mode: str, scores: dict[str, dict[str, Scored]],
    costs: dict[str, Cost],
) -> dict[str, Any]:  # fmt: skip
    names = [entry.name for entry in entries]
    draws = {task.name: draws_of(task, {name: scores[name].get(task.name) for name in names}) for task in tasks}
    table = np.array([[_number(scores[name].get(task.name)) for task in tasks] for name in names])
    places = task_ranks(table)
    means, intervals = mean_ranks(places), _rank_intervals(names, draws)
    return {
        "mode": mode,
        "reference": names[0],
        "tasks": [{"name": task.name, "metric": task.metric} for task in tasks],
        "networks": [
            {
                "name": entry.name,
                "weights": entry.weights,
                "size": entry.run.config().size,
                "mean_rank": _plain(means[row]),
                "rank_interval": intervals.get(entry.name),
                "cost": vars(costs[entry.name]),
                "scores": {
                    task.name: _told(entry.name, names[0], scores, task, draws[task.name], float(places[row, column]))
                    for column, task in enumerate(tasks)
                },
            }
            for row, entry in enumerate(entries)
        ],
    }


def draws_of(task: Task, scored: dict[str, Scored | None]) -> dict[str, Values]:
    """Network -> its score in each draw of groups, for networks with predictions for the same samples."""
    files = {name: one.answers for name, one in scored.items() if one is not None and one.answers is not None}
    loaded = {name: dict(np.load(path, allow_pickle=False)) for name, path in files.items()}
    if not loaded:
        return {}
    first = next(iter(loaded.values()))
    same = {name: one["decisions"] for name, one in loaded.items() if np.array_equal(one["key"], first["key"])}
    groups = [str(group) for group in first["group"]]
    return bootstrap.paired(first["label"], same, groups, task.num_classes, task.metric)


def _told(
    name: str, reference: str, scores: dict[str, dict[str, Scored]], task: Task, draws: dict[str, Values], rank: float
) -> dict[str, Any] | None:
    one, other = scores[name].get(task.name), scores[reference].get(task.name)
    if one is None:
        return None
    told: dict[str, Any] = {"score": one.score, "interval": one.interval, "set": one.set, "rank": _plain(rank)}
    if name == reference or other is None or one.score is None or other.score is None:
        return told
    told["difference"] = one.score - other.score
    if name in draws and reference in draws:
        told["difference_interval"] = bootstrap.interval(draws[name] - draws[reference])
    return told


def _rank_intervals(names: Sequence[str], draws: dict[str, dict[str, Values]]) -> dict[str, tuple[float, float] | None]:
    """Intervals of the mean rank of each network, over the tasks on which all networks have draws."""
    whole = [of for of in draws.values() if all(name in of for name in names)]
    if not whole:
        return {}
    scores = np.stack([np.stack([of[name] for name in names]) for of in whole], axis=-1)  # networks, draws, tasks
    ranks = task_ranks(np.moveaxis(scores, 1, 0))  # draws, networks, tasks
    means = ranks[~np.isnan(ranks).any(axis=(1, 2))].mean(axis=2)
    return {name: bootstrap.interval(means[:, row]) for row, name in enumerate(names)} if len(means) else {}


def _number(one: Scored | None) -> float:
    return float("nan") if one is None or one.score is None else one.score


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
