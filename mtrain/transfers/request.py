"""The request for a transfer: run, targets and weights, checked as far as possible before torch is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dpconvert.names import plain
from mtrain.data.addresses import url_of
from mtrain.data.pool import find_task, open_pool
from mtrain.data.task import Task, open_task
from mtrain.errors import UsageError
from mtrain.model.weight_files.weights_file import weights_in, weights_kind
from mtrain.runs.run_folder import Run
from mtrain.runs.untrained import Start

OWN, NAMED = "run", ("run", "imagenet", "random")
SINGLE = ("run", "imagenet")  # names that always stand for the same weights of a run
STEPS = 2000  # of --mode dense
OF_TARGETS = ("svm", "fewshot", "finetune", "scratch", "joint", "dense")  # modes for images that do not have one class
FROZEN_NETWORK = "heads"  # specification of mtrain.model.tuning: what --mode dense trains of the network by default
DENSE_LR = 1e-4  # of the network in --mode dense
TUNING = frozenset({"epochs", "rates", "batch", "early_stop", "seed", "tune", "layer_decay"})
# mode -> the transfer options that it reads
READS: dict[str, frozenset[str]] = {
    "svm": frozenset({"solver"}),
    "logistic": frozenset(),
    "knn": frozenset(),
    "eva": frozenset({"seed"}),
    "fewshot": frozenset({"seed"}),
    "finetune": TUNING,
    "scratch": TUNING,
    "joint": frozenset(),
    "dense": frozenset({"steps", "batch", "seed", "tune", "rates", "layer_decay"}),
}
CHOICES = frozenset().union(*READS.values())
ONLY = {"scratch": "random", "joint": OWN}  # modes that determine the weights themselves


def targets(
    run: Run, shards: Path | None, names: Sequence[str], mode: str = "svm", option: str = "--target"
) -> list[Task]:
    """The named tasks; by default those that the run left out, or for `joint` those of which it was trained on the
    training set only (on all tasks, if there are none: the mode says why it takes none of them).

    A name may be the path or the URL of a task folder. option: the command's option for them.

    Raises:
        UsageError: no target is named and the run left no task out, there is no such task, or two have one name.
    """
    names = names or (_own_tasks(run) if mode == "joint" else run.left_out())
    if not names:
        remedy = f"name one with {option} TASK"
        if isinstance(run, Start):
            raise UsageError("no task is named, and only a run has left some out", remedy=remedy)
        raise UsageError("this run left no task out", where=run.path, remedy=remedy)
    pool = None
    found: dict[str, Task] = {}
    for name in names:
        if _is_folder(name):
            task = open_task(name)
        else:
            pool = pool or open_pool(shards or Path(run.config().shards))
            task = find_task(pool, name)
        if found.setdefault(plain(task.name), task).card.digest != task.card.digest:
            raise UsageError(
                f"two targets are called {task.name}",
                where=task.folder,
                found=f"another in {found[plain(task.name)].folder}",
                remedy="give one command for each",
            )
    return list(found.values())


def with_set(tasks: Sequence[Task], split: str) -> tuple[list[Task], list[str]]:
    """The tasks that have samples in this set, by their cards, and a note for each other; all if none has any."""
    found = [task for task in tasks if split in task.card.splits and task.card.splits[split].samples]
    if not found:
        return list(tasks), []
    return found, [f"{task.name} is not scored: it has no {split} set" for task in tasks if task not in found]


def _own_tasks(run: Run) -> list[str]:
    trained_on = {task: run.trained_on()[task] for task in sorted(run.about().get("pool", {}))}
    return [task for task, sets in trained_on.items() if sets == ("train",)] or list(trained_on)


def _is_folder(name: str) -> bool:
    """Whether a target is given as the path or the URL of its folder rather than by its name."""
    return url_of(name) is not None or (Path(name) / "task.json").is_file()


def places(names: Sequence[str]) -> dict[str, str]:
    """The folder of the tasks, with the reason, if these targets do not need one; else nothing."""
    return {"shards": "every target is given as a folder"} if names and all(map(_is_folder, names)) else {}


def unread(modes: Sequence[str], weights: str = OWN) -> dict[str, str]:
    """Transfer options that none of these modes reads -> the reason. A seed also determines random weights."""
    read = frozenset().union(*(READS[mode] for mode in modes)) | ({"seed"} if weights == "random" else frozenset())
    names = " and ".join(dict.fromkeys(modes))
    return dict.fromkeys(sorted(CHOICES - read), f"--mode {names} does not read it")


def weights_of(run: Run, weights: str, mode: str = "svm", key: str | None = None) -> str:
    """The weights to use: "run" (the run's own, or those named with a network that has no run), "imagenet",
    "random", or a file or its folder.

    Raises:
        UsageError: the mode takes no weights, or a `key` is given without a file.
        RunError: the run has not finished, or the file holds no weights.
    """
    only = ONLY.get(mode, weights)
    if weights not in (OWN, only):
        raise UsageError(f"--mode {mode} takes no --weights", found=weights)
    if only == OWN and isinstance(run, Start):
        if mode in ONLY:
            raise UsageError(f"--mode {mode} takes a run", found=run.name, remedy="name one with --run")
        only = run.config().weights
    if only == OWN:
        run.check_finished()
    elif only not in NAMED:
        network = run.network()
        weights_kind(weights_in(Path(only), () if isinstance(network, str) else network.files))
    if key is not None and only in NAMED:
        raise UsageError("--weights-key names a part of a file", found=f"--weights {only}", remedy="omit it")
    return only
