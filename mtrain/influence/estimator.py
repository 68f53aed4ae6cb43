"""The gradients of a run's sources and of a target, from which the target's losses follow for any subset."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
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
from mtrain.errors import RunError, UsageError
from mtrain.influence import surrogate
from mtrain.influence.margins import DEFINED, Margins, Values, margins, moving
from mtrain.influence.probe import FreshProbe, fresh_probe
from mtrain.influence.projection import Projection
from mtrain.influence.subsets import Subset
from mtrain.model import tuning
from mtrain.model.devices import find_device
from mtrain.model.heads import load_heads
from mtrain.model.network import SharedNetwork
from mtrain.transfers.classifiers.probes import TrainingSet
from mtrain.transfers.pretrained import Pretrained

Layers = Literal["last", "all"]


@dataclass(frozen=True)
class InfluenceOptions:
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


def _ridge(config: FitConfig) -> float:
    """The penalty under which the regressions move the weights as far as the training could have moved them.

    t steps of gradient descent at rate r from 0 move the weights as far as ridge regression with a penalty of 1 / (r t)
    (Ali, Kolter and Tibshirani, "A continuous-time view of early stopping for least squares", AISTATS 2019). Momentum m
    makes the rate r / (1 - m).
    """
    momentum = config.momentum if config.optimizer == "sgd" else 0.9
    return (1 - momentum) / (config.lr * (config.iterations - config.warmup))


def estimator_of(
    source: Pretrained, config: FitConfig, target: Task, shards: Path | str, options: InfluenceOptions, report: Reporter
) -> Estimator:
    """Compute the gradients. shards: folder of the tasks that the run was trained on.

    Raises:
        UsageError: the training moved no weights in these layers, or a task has no classes.
        RunError: the shards are not those that the run was trained on.
    """
    pool, run, device = open_pool(shards), source.run, find_device(options.device)
    for name in run.trained_on():
        need_classes(find_task(pool, name), "mtrain influence", DEFINED)
    network, parameters = _prepared(source, config, options.layers, device)
    projection = Projection(sum(p.numel() for p in parameters.values()), options.dimensions, options.seed, device)
    how = {"size": config.size, "workers": options.workers, "device": device}
    probe, found = _probed(source, target, options, report)
    heads, sources, groups, passes = load_heads(run.heads), {}, {}, 0
    digests = run.about()["pool"]
    with report.bar("gradients", len(digests) + 1, unit="tasks") as advance:
        for number, (name, sets) in enumerate(sorted(run.trained_on().items())):
            task = find_task(pool, name)
            _check_digest(task, digests[name])
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
        tuple(task.name for task in pool.tasks),
        sources,
        of_target,
        _ridge(config),
        [str(group) for group in target.rows["val"].group],
        groups,
        {"forward": scored, "backward": passes + scored, "weights": projection.parameters},
    )


def _prepared(
    source: Pretrained, config: FitConfig, layers: Layers, device: torch.device
) -> tuple[SharedNetwork, dict[str, Tensor]]:
    """The network on the device, and the weights in these layers that the training moved, by name."""
    network = copy.deepcopy(source.network).eval()  # features computed in inference mode have no gradients
    tune = config.tune if not config.tune.startswith("lora") else "all"
    tuning.prepare(network.body, tune, network.name)
    network = network.to(device)
    parameters: dict[str, Tensor] = {name: p.detach() for name, p in moving(network.body, layers).items()}
    network.requires_grad_(False)  # only what `margins` differentiates needs a graph
    if not parameters:
        raise UsageError(f"--layers {layers}: the training moved no weights in these layers", where=source.run.path)
    return network, parameters


def _check_digest(task: Task, digest: str) -> None:
    if task.card.digest != digest:
        raise RunError(
            f"the shards of {task.name} are not those that the run was trained on",
            where=task.folder,
            remedy="convert its source as it was then, or train the run anew",
        )


def _trained_rows(task: Task, sets: Sequence[str]) -> Rows:
    return training_on(pool_of([task]), [name for name in sets if name in OPEN]).tasks[0].rows["train"]


def _sampled(rows: Rows, samples: int, seed: int, number: int) -> Rows:
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64)))
    return rows.take(np.sort(rng.permutation(len(rows))[:samples]))


def _probed(
    source: Pretrained, target: Task, options: InfluenceOptions, report: Reporter
) -> tuple[FreshProbe, dict[str, NDArray[np.float32]]]:
    found: dict[str, NDArray[np.float32]] = {
        split: source.features(target, split, workers=options.workers, report=report, device=options.device)
        for split in OPEN
    }
    rows = target.rows["train"]
    groups = [str(group) for group in rows.group]
    sample = TrainingSet(found["train"], rows.label, groups, target.num_classes, target.metric, options.device)
    return fresh_probe(sample), found


def _target(
    probe: FreshProbe,
    both: Mapping[str, Margins],
    found: Mapping[str, NDArray[np.float32]],
    task: Task,
    options: InfluenceOptions,
) -> surrogate.Target:
    heads = {split: probe.gradients(found[split], task.rows[split].label) for split in OPEN}
    projection = Projection(heads["train"].shape[1], options.dimensions, options.seed + 1, torch.device("cpu"))
    small = {split: projection(torch.from_numpy(of)).double().numpy() for split, of in heads.items()}
    return surrogate.Target(both["train"], both["val"], small["train"], small["val"], probe.penalty)
