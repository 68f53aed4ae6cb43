"""Selects the evaluations that may be compared in one row of a table, with notes on the others.

The scores of a row must be of the same shards, the same input size and the same recipe of each transfer mode, which are
read from the `identity` of an evaluation. Multi-task networks must have begun from the same weights and used the same
sets of their tasks, and those of a column must have the same training but for its seed: `training` has its settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from dpconvert.plural import counted
from mtrain.evaluation.paper_tables import POOL, Evaluation

E = TypeVar("E", bound=Evaluation)
Setting = dict[str, Any]
Group = tuple[str, str]  # task and network identify a row

SHARED = {"size": "size", "task_digest": "shards"}  # key of an identity -> its name in messages
TUNED = ("epochs", "rates", "batch", "momentum", "weight_decay", "early_stop", "tune", "layer_decay")
DENSE = ("steps", "batch", "tune", "lr", "layer_decay")
RECIPES = {"svm": ("solver",), "finetune": TUNED, "scratch": TUNED, "dense": DENSE}
# mode -> name of its recipe, where it is not that of the mode, which stands before the settings of the training
RECIPE_OF = {"finetune": "tuning", "scratch": "tuning", "dense": "decoder"}
OFF = {"tune": "all", "layer_decay": None}  # what an identity leaves out
FROZEN = {"tune": "heads", "lr": None, "layer_decay": None}  # what that of masks and points leaves out
STARTS = ("weights", "weights_key", "backbone_options", "train_on")  # settings that all training runs of a row share
# weights that all evaluations of a network must share -> their name in messages
BASELINES = {"imagenet": "ImageNet weights", "start": "published weights"}
USUAL = ("iterations", "warmup", "lr", "tau", "batch")  # what the note on a single run names
ANY_SIZE: Mapping[str, int] = {}
DIGESTS = ("task_digest", *BASELINES.values())


def comparable(
    found: Iterable[E],
    *,
    ours: Callable[[Evaluation], bool],
    sizes: Mapping[str, int] = ANY_SIZE,
    combination: Callable[[Evaluation], str | None] = lambda _one: None,
) -> tuple[list[E], list[str]]:
    """The evaluations of one setting for each task and network: the setting of the newest multi-task evaluation, or of
    the newest evaluation if there is none.

    found: oldest first. sizes: the input size that all evaluations of a network must have, by its name. combination:
    the training settings of the multi-task network, if known.
    """
    every = [(one, _setting(one, combination(one))) for one in found]
    references: dict[Group, Setting] = {}

    def sized(backbone: str) -> Setting:
        return {"size": sizes[backbone]} if backbone in sizes else {}

    own = [pair for pair in every if ours(pair[0])]
    others = [pair for pair in every if not ours(pair[0])]
    for one, setting in (*reversed(own), *reversed(others)):
        known = references.setdefault((one.task, one.backbone), sized(one.backbone))
        references[one.task, one.backbone] = setting | known
    kept, left = [], Counter[tuple[str, str, str, str]]()
    for one, setting in every:
        differ = _differences(setting, references[one.task, one.backbone])
        if differ:
            left[one.task, one.backbone, one.column, differ] += 1
        else:
            kept.append(one)
    return kept, [
        f"{task}, {backbone}, {column}: {counted(count, 'evaluation')} left out, of {differ}"
        for (task, backbone, column, differ), count in sorted(left.items())
    ]


def joint_notes(shown: Iterable[Evaluation]) -> list[str]:
    """Notes on the runs with joint scores, whose settings no selection has chosen: those that differ from the
    settings of the multi-task networks of the row, or the usual ones if the row has no such network.
    """
    trainings: dict[Group, Setting] = {}
    joint: dict[Group, Setting] = {}
    for one in shown:
        if one.source == "multitask" and one.training:
            (joint if one.mode == "joint" else trainings)[one.task, one.backbone] = one.training
    notes = []
    for (task, backbone), training in sorted(joint.items()):
        reference = trainings.get((task, backbone))
        told = {name: training[name] for name in USUAL if name in training}
        if reference is not None:
            told = {n: value for n, value in training.items() if n != POOL and value != reference.get(n)}
        if told:
            of = "" if reference is None else ", unlike the multi-task networks beside it"
            stated = ", ".join(f"{name} {_shown(value)}" for name, value in told.items())
            notes.append(f"{task}, {backbone}, joint: trained with {stated}{of}; no selection chose these settings")
    return notes


def _setting(one: Evaluation, combination: str | None) -> Setting:
    """The settings that must be equal within a row. Those of a single transfer mode have its name as a prefix."""
    found = {name: one.identity[name] for name in SHARED if name in one.identity}
    recipe = RECIPE_OF.get(one.mode, one.mode)
    identity = (FROZEN if one.mode == "dense" else OFF) | one.identity
    found |= {f"{recipe} {name}": identity[name] for name in RECIPES.get(one.mode, ()) if name in identity}
    if one.source in BASELINES and "weights_digest" in one.identity:
        found[BASELINES[one.source]] = one.identity["weights_digest"]
    found |= {name if name in STARTS else f"{one.mode} {name}": value for name, value in one.training.items()}
    return found if combination is None else found | {f"{one.mode} combination": combination}


def _differences(setting: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """The settings that differ, for messages; empty if none does."""
    differ = {name: (value, reference[name]) for name, value in setting.items() if value != reference[name]}
    return ", ".join(
        f"other {SHARED.get(name, name)}"
        if name in DIGESTS or name.endswith(f" {POOL}")
        else f"{SHARED.get(name, name)} {_shown(value)}, not {_shown(other)}"
        for name, (value, other) in differ.items()
    )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
