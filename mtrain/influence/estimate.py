"""Estimates what each source task of a run did to a target that the run left out.

The result is a JSON document, <run>/influence/<Target>-<layers>.json. The test set of the target is never opened.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpconvert.runtime.progress import Reporter
from mtrain.config import FitConfig
from mtrain.data.labels import need_classes
from mtrain.data.pool import find_task, open_pool, pool_of, training_on
from mtrain.data.rows import Rows
from mtrain.data.task import OPEN, Task
from mtrain.documents import known_document, write_document
from mtrain.errors import RunError, UsageError
from mtrain.influence import companions, surrogate
from mtrain.influence.gradients import DEFINED, Margins, Values, margins, moving
from mtrain.influence.probe import FreshProbe, fresh_probe
from mtrain.influence.projection import Projection
from mtrain.influence.subsets import Subset, drawn, estimated
from mtrain.model import tuning
from mtrain.model.devices import find_device
from mtrain.model.heads import load_heads
from mtrain.runs import Run
from mtrain.scoring import bootstrap
from mtrain.transfers.features import features
from mtrain.transfers.pretrained import Pretrained, check_unseen
from mtrain.transfers.probes import TrainingSet
from mtrain.transfers.request import OWN
from mtrain.transfers.transfer import source_of
from mtrain.versions import versions

DRAWS = 1000
Layers = Literal["last", "all"]


@dataclass(frozen=True)
class Options:
    """How to estimate.

    samples: maximum number of samples of each source.
    dimensions: number of dimensions of the projected gradients.
    subsets: number of subsets to estimate if there are too many sources to estimate all subsets.
    """

    layers: Layers = "last"
    samples: int = 200
    dimensions: int = 200
    subsets: int = 200
    seed: int = 0
    workers: int = 2
    device: str = "auto"

    def determining(self) -> dict[str, Any]:
        """The options that the result depends on."""
        return {name: value for name, value in asdict(self).items() if name not in ("workers", "device")}


@dataclass
class Estimator:
    """Gradients of the sources and the target, from which the target's losses follow for any subset of the sources."""

    tasks: tuple[str, ...]  # all tasks in the folder
    sources: dict[str, Margins]
    target: surrogate.Target
    ridge: float
    groups: list[str]  # group of each scored sample
    groups_of: dict[str, set[str]]  # groups of each source that the run trained on
    cost: dict[str, float]
    known: dict[Subset, Values] = field(default_factory=dict)

    def losses(self, subset: Sequence[str]) -> Values:
        """Losses (n,) of the scored samples of the target after training on `subset`."""
        key = tuple(sorted(subset))
        if key not in self.known:
            moved = surrogate.moved_by(self.sources, key, self.ridge)
            self.known[key] = surrogate.target_losses(self.target, moved)
        return self.known[key]


def path_of(run: Run, target: str, layers: str) -> Path:
    """Path of the document of an estimate."""
    return run.path / "influence" / f"{target}-{layers}.json"


def influence(
    run: Run, target: Task, shards: Path | str, options: Options, report: Reporter
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
    made: list[Estimator] = []

    def estimator() -> Estimator:
        if not made:
            made.append(_estimator(source, config, target, shards, options, report))
        return made[0]

    identity = options.determining() | {"weights": source.digest, "target": target.card.digest, **versions()}
    path = path_of(run, target.name, options.layers)
    known = known_document(path, report.note)
    if known is not None and known.get("identity") == identity:
        report.note(f"{target.name}: known already, from {path}")
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


def _ridge(config: FitConfig) -> float:
    """The penalty under which the regressions move the weights as far as the training could have moved them.

    t steps of gradient descent at rate r from 0 move the weights as far as ridge regression with a penalty of 1 / (r t)
    (Ali, Kolter and Tibshirani, "A continuous-time view of early stopping for least squares", AISTATS 2019). Momentum m
    makes the rate r / (1 - m).
    """
    momentum = config.momentum if config.optimizer == "sgd" else 0.9
    return (1 - momentum) / (config.lr * (config.iterations - config.warmup))


def _estimator(
    source: Pretrained, config: FitConfig, target: Task, shards: Path | str, options: Options, report: Reporter
) -> Estimator:
    pool, run, device = open_pool(shards), source.run, find_device(options.device)
    for name in run.trained_on():
        need_classes(find_task(pool, name), "mtrain influence", DEFINED)
    network = copy.deepcopy(source.network).eval()  # features computed in inference mode have no gradients
    tune = config.tune if not config.tune.startswith("lora") else "all"
    tuning.prepare(network.body, tune, network.name)
    network = network.to(device)
    parameters: dict[str, Tensor] = {name: p.detach() for name, p in moving(network.body, options.layers).items()}
    network.requires_grad_(False)  # only what `margins` differentiates needs a graph
    if not parameters:
        raise UsageError(f"--layers {options.layers}: the training moved no weights in these layers", where=run.path)
    projection = Projection(sum(p.numel() for p in parameters.values()), options.dimensions, options.seed, device)
    how = {"size": config.size, "workers": options.workers, "device": device}
    probe, found = _probed(source, config, target, options, report)
    heads, sources, groups, passes = load_heads(run.heads), {}, {}, 0
    digests = run.about()["pool"]
    with report.bar("gradients", len(digests) + 1, unit="tasks") as advance:
        for number, (name, sets) in enumerate(sorted(run.trained_on().items())):
            task = find_task(pool, name)
            if task.card.digest != digests[name]:
                raise RunError(f"the shards of {name} are not those that the run was trained on", where=task.folder)
            trained = _trained_rows(task, sets)
            groups[name] = {str(group) for group in trained.group}
            rows = _sampled(trained, options.samples, options.seed, number)
            head = (heads[name].weight, heads[name].bias)
            sources[name] = margins(network, head, task, rows, projection, parameters, **how)  # type: ignore[arg-type]
            passes += len(rows)
            advance()
        both: dict[str, Margins] = {
            split: margins(network, probe.head(), target, target.rows[split], projection, parameters, **how)  # type: ignore[arg-type]
            for split in OPEN
        }
        advance()
    of_target = _target(probe, both, found, target, options)
    scored = len(target.rows["train"]) + len(target.rows["val"])
    return Estimator(
        tuple(task.name for task in pool.tasks), sources, of_target, _ridge(config),
        [str(group) for group in target.rows["val"].group], groups,
        {"forward": scored, "backward": passes + scored, "weights": projection.parameters},
    )  # fmt: skip


def _trained_rows(task: Task, sets: Sequence[str]) -> Rows:
    return training_on(pool_of([task]), [name for name in sets if name in OPEN]).tasks[0].rows["train"]


def _sampled(rows: Rows, samples: int, seed: int, number: int) -> Rows:
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64)))
    return rows.take(np.sort(rng.permutation(len(rows))[:samples]))


def _probed(
    source: Pretrained, config: FitConfig, target: Task, options: Options, report: Reporter
) -> tuple[FreshProbe, dict[str, NDArray[np.float32]]]:
    found: dict[str, NDArray[np.float32]] = {
        split: features(
            source.network, target, split, size=config.size, cache=source.cache, workers=options.workers, report=report,
            device=options.device, weights=source.origin,
        )
        for split in OPEN
    }  # fmt: skip
    rows = target.rows["train"]
    groups = [str(group) for group in rows.group]
    sample = TrainingSet(found["train"], rows.label, groups, target.num_classes, target.metric, options.device)
    return fresh_probe(sample), found


def _target(
    probe: FreshProbe,
    both: Mapping[str, Margins],
    found: Mapping[str, NDArray[np.float32]],
    task: Task,
    options: Options,
) -> surrogate.Target:
    heads = {split: probe.gradients(found[split], task.rows[split].label) for split in OPEN}
    projection = Projection(heads["train"].shape[1], options.dimensions, options.seed + 1, torch.device("cpu"))
    small = {split: projection(torch.from_numpy(of)).double().numpy() for split, of in heads.items()}
    return surrogate.Target(both["train"], both["val"], small["train"], small["val"], probe.penalty)


def _content(run: Run, target: Task, options: Options, made: Estimator) -> dict[str, Any]:
    sources = sorted(made.sources)
    subsets = estimated(made.tasks, sources, options.subsets, options.seed)
    exhaustive = len(subsets) == 2 ** len(sources) - 1
    losses = np.stack([made.losses(subset) for subset in subsets])
    members = surrogate.memberships(subsets, sources)
    theta = surrogate.effects(members, losses.mean(1))
    draws = _drawn_effects(members, losses, made.groups, options.seed, again=not exhaustive)
    rows = [_row(name, float(value), draws[:, j]) for j, (name, value) in enumerate(zip(sources, theta, strict=True))]
    best = _best(made, subsets, [row["task"] for row in sorted(rows, key=lambda row: -row["theta"])])
    harmful = [row["task"] for row in rows if row["sign"] == "harms"]
    notes = (
        []
        if len(draws)
        else [f"the validation set of {target.name} has only one {target.card.group_kind}: no intervals"]
    )
    if len(harmful) == len(sources):
        harmful = [name for name in harmful if name != best[0]["tasks"][0]]
        notes.append(
            f"every source is estimated to harm; {best[0]['tasks'][0]} is kept because at least one task must remain"
        )
    return {
        "kind": "influence",
        "run": run.name,
        "target": target.name,
        "metric": target.metric,
        "options": options.determining() | {"ridge": made.ridge},
        "subsets": len(subsets),
        "all_subsets": exhaustive,
        "groups": len(set(made.groups)),
        "loss": float(made.losses(sources).mean()),
        "sources": companions.beside(rows, made, target, run),
        "leave_out": harmful,
        "best": best,
        "saw": {target.name: list(OPEN)} | {name: list(sets) for name, sets in run.trained_on().items()},
        "cost": made.cost | {"regressions": 2 * len(made.known)},
        "verification": None,
        "matrix": None,
        "notes": notes,
    }


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


def _best(made: Estimator, subsets: Sequence[Subset], order: Sequence[str]) -> list[dict[str, Any]]:
    """For each size, the subset with the smallest loss among those estimated and the first tasks of `order`."""
    found = []
    for size in range(1, len(order) + 1):
        candidates = [one for one in subsets if len(one) == size] + [tuple(sorted(order[:size]))]
        losses = [float(made.losses(one).mean()) for one in candidates]
        place = int(np.argmin(losses))
        found.append({"size": size, "tasks": list(candidates[place]), "loss": losses[place]})
    return found


def verified_subsets(made: Estimator, count: int, seed: int) -> list[Subset]:
    """The subsets on which the estimate is compared with retraining."""
    return drawn(made.tasks, sorted(made.sources), count, seed)
