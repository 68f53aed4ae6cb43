"""What a training says before it begins: what it trains on, and what of its data and settings it does not use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dpconvert.plural import counted
from mtrain.backbones.model_folder import card_of_folder
from mtrain.config import FitConfig
from mtrain.data.pool import Pool
from mtrain.data.task import Task
from mtrain.model.network_names import remark
from mtrain.runs.seen import Seen


def remarks(config: FitConfig, pool: Pool, start: Seen, left: Sequence[Task]) -> Iterator[str]:
    """The remarks on a training with these settings on this pool, one line each.

    start: what the weights it begins from were trained on. left: the tasks that are left out.
    """
    yield from _on_sets(config, pool)
    yield from _on_features(config)
    yield from _on_dense(config, pool)
    yield from _on_targets(config, pool)
    yield from _on_start(start, left)
    if said := remark(config.backbone):
        yield said
    if Path(config.backbone).is_dir() and (note := card_of_folder(Path(config.backbone)).note):
        yield f"{config.backbone}: {note}"


def _on_sets(config: FitConfig, pool: Pool) -> Iterator[str]:
    """A note if sets other than the training sets are trained on."""
    tasks = [task for task in pool.tasks if "val" in task.trains]
    if not tasks:
        return
    kept = [task.name for task in pool.tasks if "val" not in task.trains]
    but = f"; only the training set of {', '.join(kept)}" if kept else ""
    curves = "" if kept or not config.validate_every else "; no validation set is left (--train-on train keeps it)"
    yield f"trained on: {', '.join(tasks[0].trains)} of {counted(len(tasks), 'task')}{but}{curves}"


def _on_features(config: FitConfig) -> Iterator[str]:
    """A note if the heads are trained on features that were computed once."""
    if config.features == "cached":
        yield "features are computed once, of the central square of each image: no random crops and flips (--features)"


def _on_dense(config: FitConfig, pool: Pool) -> Iterator[str]:
    """A note on masks, points and boxes that are trained on, or that are not."""
    dense = [task for task in pool.tasks if task.dense]
    names = ", ".join(task.name for task in dense)
    if config.dense:
        yield f"masks and points of {counted(len(dense), 'task')} are trained on too: {names}"
        for task in pool.tasks:
            if task.untrained:
                yield f"{task.name}: not trained on: {' and '.join(task.untrained)}"
    elif dense:
        yield f"masks and points of {counted(len(dense), 'task')} are not trained on (--dense trains on them): {names}"


def _on_targets(config: FitConfig, pool: Pool) -> Iterator[str]:
    """A note on tasks that the curves of a training do not show."""
    names = [task.name for task in pool.tasks if task.target == "value"]
    if names and config.validate_every:
        yield f"no accuracy on val is shown for {', '.join(names)}, whose images have numbers"


def _on_start(start: Seen, left: Sequence[Task]) -> Iterator[str]:
    """What to say of tasks that leave, though what the training begins from has seen them."""
    for task in left:
        known = start.of_relatives(task.name, tuple(task.card.related))
        if sets := start.of_task(task.name):
            known = {task.name: sets, **known}
        for name, sets in known.items():
            yield (
                f"{task.name} is left out, but --weights were trained on {' and '.join(sets)} of {name}: "
                "no transfer of this run to it will be scored"
            )
