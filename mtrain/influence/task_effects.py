"""Estimates what each source task of a run did to a target that the run left out.

The result is a JSON document, <run>/influence/<Target>-<layers>.json. The test set of the target is never opened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.data.labels import constant, need_classes
from mtrain.data.task import OPEN, Task
from mtrain.disk.documents import known_document, write_document
from mtrain.errors import UsageError
from mtrain.influence import indicators, surrogate
from mtrain.influence.estimator import Estimator, InfluenceOptions, estimator_of
from mtrain.influence.margins import DEFINED, Values
from mtrain.influence.subsets import Subset, drawn, estimated
from mtrain.runs.run_folder import Run
from mtrain.scoring import bootstrap
from mtrain.transfers.pretrained import check_unseen
from mtrain.transfers.request import OWN
from mtrain.transfers.transfer import source_of
from mtrain.versions import versions

DRAWS = 1000
BEYOND = 2.0  # times the loss of a guess: no probe that is fitted again does so badly


def path_of(run: Run, target: str, layers: str) -> Path:
    """Path of the document of an estimate."""
    return run.path / "influence" / f"{target}-{layers}.json"


def influence(
    run: Run, target: Task, shards: Path | str, options: InfluenceOptions, report: Reporter
) -> tuple[dict[str, Any], Callable[[], Estimator]]:
    """Estimate, or read the estimate in the run's folder. Also returns a function that gives the estimator.

    shards: folder of the tasks that the run was trained on.

    Raises:
        UsageError: the run trained on the target or did not move its shared network, or the target has no validation
            set.
        RunError: the run is unfinished or was trained on other shards.
    """
    config = run.config()
    need_classes(target, "mtrain influence", DEFINED)
    _check(run, config, target)
    source = source_of(run, OWN)
    check_unseen(source, target, OPEN)
    estimators: list[Estimator] = []

    def estimator() -> Estimator:
        if not estimators:
            estimators.append(estimator_of(source, config, target, shards, options, report))
        return estimators[0]

    identity = options.determining() | {"weights": source.digest, "target": target.card.digest, **versions()}
    path = path_of(run, target.name, options.layers)
    known = known_document(path, report.note)
    if known is not None and known.get("identity") == identity:
        report.note(f"{target.name}: existing result reused: {path}")
        return known, estimator
    begun = time.monotonic()
    content = {"identity": identity, **_content(run, target, options, estimator())}
    content["cost"]["seconds"] = round(time.monotonic() - begun, 2)
    write_document(path, content)
    return content, estimator


def _check(run: Run, config: FitConfig, target: Task) -> None:
    steps = config.iterations - config.warmup
    if config.tune == "heads" or not steps:
        raise UsageError(
            "the training of this run did not move the shared network, so no task has influenced it", where=run.path
        )
    if len(run.about()["pool"]) < 2:
        raise UsageError("this run was trained on one task: there is no other to compare it with", where=run.path)
    for split in OPEN:
        if not len(target.rows[split]):
            raise UsageError(f"{target.name} has no {split} set", where=target.folder, remedy="choose another --target")
    train, val = (np.unique(target.rows[split].label).tolist() for split in OPEN)
    if unseen := [target.classes[label] for label in val if label not in train]:
        raise UsageError(
            f"{target.name}: the training set has no image of a class of the validation set, so that no probe finds it",
            where=target.folder,
            found=", ".join(unseen),
            remedy="choose another --target",
        )
    if wrong := constant(target, target.rows["train"]):
        what = f"the training set of {target.name} {wrong}, so no probe can be trained"
        raise UsageError(what, where=target.folder, remedy="choose another --target")


def _content(run: Run, target: Task, options: InfluenceOptions, estimator: Estimator) -> dict[str, Any]:
    sources = sorted(estimator.sources)
    subsets = estimated(estimator.tasks, sources, options.subsets, options.seed)
    exhaustive = len(subsets) == 2 ** len(sources) - 1
    losses = np.stack([estimator.losses(subset) for subset in subsets])
    members = surrogate.memberships(subsets, sources)
    theta = surrogate.effects(members, losses.mean(1))
    draws = _drawn_effects(members, losses, estimator.groups, options.seed, again=not exhaustive)
    rows = [_row(name, float(value), draws[:, j]) for j, (name, value) in enumerate(zip(sources, theta, strict=True))]
    beyond = _beyond(estimator, losses.mean(1), target)
    if beyond:
        rows = [row | {"sign": "unclear"} for row in rows]
    best = _best(estimator, subsets, [row["task"] for row in sorted(rows, key=lambda row: -row["theta"])])
    harmful, kept = _to_leave_out(rows, best[0]["tasks"][0])
    one_group = f"the validation set of {target.name} has only one {target.card.group_kind}: no intervals"
    notes = [note for note in ("" if len(draws) else one_group, beyond, kept) if note]
    return {
        "kind": "influence",
        "run": run.name,
        "target": target.name,
        "metric": target.metric,
        "options": options.determining() | {"ridge": estimator.ridge},
        "subsets": len(subsets),
        "all_subsets": exhaustive,
        "groups": len(set(estimator.groups)),
        "loss": float(estimator.losses(sources).mean()),
        "sources": indicators.beside(rows, estimator, target, run),
        "leave_out": harmful,
        "pool": run.about()["pool"] | {target.name: target.card.digest},
        "best": [] if beyond else best,
        "saw": {target.name: list(OPEN)} | {name: list(sets) for name, sets in run.trained_on().items()},
        "cost": estimator.cost | {"regressions": 2 * len(estimator.known)},
        "verification": None,
        "matrix": None,
        "notes": notes,
    }


def _to_leave_out(rows: Sequence[dict[str, Any]], best: str) -> tuple[list[str], str]:
    """The tasks that harm, without `best` if all do, and then a note that says so."""
    harmful = [row["task"] for row in rows if row["sign"] == "harms"]
    if len(harmful) < len(rows):
        return harmful, ""
    note = f"every source is estimated to harm; {best} is kept because at least one task must remain"
    return [name for name in harmful if name != best], note


def _beyond(estimator: Estimator, losses: Values, target: Task) -> str | None:
    """What to say if the estimated losses of subsets are impossible, because the weights move too far for a linear
    estimate.
    """
    guess = max(float(np.log(target.num_classes)), float(surrogate.softplus(-estimator.target.scored.margins).mean()))
    worst = float(losses.max())
    if worst <= BEYOND * guess:
        return None
    return (
        f"the estimate says nothing: it is linear, and a loss of {worst:.4g} nats is far beyond that of a guess "
        f"({guess:.4g}); so no sign and no subset is given (features of {target.name} that hardly vary are one cause; "
        "--verify trains on subsets instead)"
    )


def _row(name: str, theta: float, draws: Values) -> dict[str, Any]:
    interval = bootstrap.interval(draws) if len(draws) else None
    sign = "unclear"
    if interval is not None and interval[0] > 0:
        sign = "helps"
    elif interval is not None and interval[1] < 0:
        sign = "harms"
    return {"task": name, "theta": theta, "interval": interval, "sign": sign}


def _drawn_effects(members: Values, losses: Values, groups: Sequence[str], seed: int, *, again: bool) -> Values:
    """Bootstrap draws (draws, sources) of theta: groups of the target's samples are drawn with replacement, and if
    `again`, subsets as well. Empty if there is only one group.
    """
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2:
        return np.zeros((0, members.shape[1]))
    rng = np.random.Generator(np.random.Philox(seed))
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)[:, group].astype(np.float64)
    means = (counts / counts.sum(1, keepdims=True)) @ losses.T  # (draws, subsets)
    if not again:
        return surrogate.effects(members, means)
    picked = rng.integers(len(members), size=(DRAWS, len(members)))
    return np.stack([surrogate.effects(members[p], mean[p]) for p, mean in zip(picked, means, strict=True)])


def _best(estimator: Estimator, subsets: Sequence[Subset], order: Sequence[str]) -> list[dict[str, Any]]:
    """For each size, the subset with the smallest loss among those estimated and the first tasks of `order`."""
    found = []
    for size in range(1, len(order) + 1):
        candidates = [one for one in subsets if len(one) == size] + [tuple(sorted(order[:size]))]
        losses = [float(estimator.losses(one).mean()) for one in candidates]
        place = int(np.argmin(losses))
        found.append({"size": size, "tasks": list(candidates[place]), "loss": losses[place]})
    return found


def verified_subsets(estimator: Estimator, count: int, seed: int) -> list[Subset]:
    """The subsets on which the estimate is compared with retraining."""
    return drawn(estimator.tasks, sorted(estimator.sources), count, seed)
