"""Hours of the paper's sweep on one GPU: every cell on its own, with shared warm-ups, and as a race.

Nothing is trained. The speeds are those that the other benchmarks measured (benchmarks/README.md: step, features), the
cells and decisions those of `mtrain sweep paper --plan`, and the numbers of images those of the paper's tasks. An
iteration of a warm-up is counted as a pass of frozen features. Support vector machines and checkpoints are not counted.

    python benchmarks/race/hours.py
    python benchmarks/race/hours.py --step resnet50=3492 --step densenet121=2049     images per second of your GPU
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mtrain.data.task import Task
from mtrain.evaluation.paper_tables import published_facts
from mtrain.race import race_cost as race_plan
from mtrain.race.agenda import race_agenda
from mtrain.sweep import sweep_cost
from mtrain.sweep.cells import cells_of
from mtrain.sweep.left_out import LeftOut, left_out_sets
from mtrain.sweep.spec import Sweep, load_sweep
from mtrain.sweep.store import Store
from mtrain.sweep.sweep_cost import Kind, Pace

sys.path.insert(0, str(Path(__file__).parents[1]))
from generated import make_shards

NETWORKS = {"resnet50": "resnet50", "densenet121": "mtdp_densenet121"}
STEP = {"resnet50": 3492.0, "densenet121": 2049.0}  # images per second of `mtrain fit`, NVIDIA H100, batch 64
FEATURES = {"resnet50": 7061.0, "densenet121": 5161.0}  # images per second of features from shards, on the same GPU


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", action="append", default=[], metavar="NETWORK=IMAGES/S", help="of `mtrain fit`")
    parser.add_argument("--features", action="append", default=[], metavar="NETWORK=IMAGES/S", help="of features")
    args = parser.parse_args()
    paces = _paces(STEP | _speeds(args.step), FEATURES | _speeds(args.features))
    sys.stdout.write("| the paper's sweep | trainings | hours | share |\n|---|--:|--:|--:|\n")
    with tempfile.TemporaryDirectory() as folder:
        sizes = {name: of["size"] for name, of in published_facts()["tasks"].items()}
        shards = make_shards(Path(folder), len(sizes) + 1, 2)
        found = [
            row
            for together in (1, 4)
            for row in rows(_sweep(shards, list(sizes), together), list(sizes.values()), paces, Path(folder))
        ]
    for name, trainings, hours in found:
        sys.stdout.write(f"| {name} | {trainings} | {hours:.0f} | {hours / found[0][2]:.1%} |\n")


def rows(sweep: Sweep, sizes: Sequence[int], paces: dict[Kind, Pace], folder: Path) -> Iterator[tuple[str, str, float]]:
    """How, the number of trainings, and hours. sizes: images of the tasks, in the order of their names."""
    sets = {names: _sized(left, sizes) for names, left in left_out_sets(sweep).items()}
    cells, every = cells_of(sweep, sets), list(sets.values())
    full = sweep_cost.plan(Store(folder / f"together-{sweep.together}"), cells, every, paces)
    raced = race_plan.plan(race_agenda(sweep, sets, cells), every, paces)
    of = "" if sweep.together == 1 else f", {sweep.together} sets left out together"
    yield f"every cell on its own{of}", str(len(cells)), full.hours_alone
    yield f"shared warm-ups{of}", str(len(cells)), full.hours
    yield f"race, expected{of}", "", raced.hours_expected
    yield f"race, at worst{of}", "", raced.hours_worst


def _sweep(shards: Path, names: Sequence[str], together: int) -> Sweep:
    """The paper's sweep, of tasks with generated images under generated names."""
    sweep, generated = load_sweep("paper"), {name: f"Task{number:02}" for number, name in enumerate(names)}
    leave_out = tuple(tuple(generated[name] for name in names) for names in sweep.leave_out)
    return sweep.model_copy(update={"shards": str(shards), "leave_out": leave_out, "together": together})


def _sized(left: LeftOut, sizes: Sequence[int]) -> LeftOut:
    """The set with as many images in its tasks as the paper's have."""
    return replace(left, tasks=tuple(_of_size(task, sizes[int(task.name[-2:])]) for task in left.tasks))


def _of_size(task: Task, size: int) -> Task:
    return replace(task, rows={**task.rows, "train": task.rows["train"].take([0] * size)})


def _paces(step: dict[str, float], features: dict[str, float]) -> dict[Kind, Pace]:
    batch = int(load_sweep("paper").fit["batch"])
    return {
        (backbone, False, "mean"): Pace(batch / step[name], batch / features[name], 1 / features[name], 0, 0)
        for name, backbone in NETWORKS.items()
    }


def _speeds(given: Sequence[str]) -> dict[str, float]:
    return {name: float(speed) for name, _, speed in (text.partition("=") for text in given)}


if __name__ == "__main__":
    main()
