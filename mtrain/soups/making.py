"""Makes a soup: a run folder with combined weights, which every command takes that takes a finished run.

There are no checkpoints and no log. Heads of a task that several runs have are averaged too; a decoder of masks and
points is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpconvert.plural import counted
from dpconvert.runtime.progress import Reporter
from mtrain.data.labels import Scaling
from mtrain.errors import RunError, UsageError
from mtrain.model.batchnorm import batchnorm_adapt
from mtrain.model.frozen import weights_digest
from mtrain.model.heads import Head, load_heads
from mtrain.model.network import SharedNetwork
from mtrain.model.weight_files.tensor_file import write_tensors
from mtrain.model.weight_files.weights import save_weights
from mtrain.provenance import git_state
from mtrain.runs.belonging import NETWORK, SETTINGS, settings_digest, write_state
from mtrain.runs.run_folder import SOUP, Run
from mtrain.runs.seen import Seen
from mtrain.soups import statistics
from mtrain.soups.weight_arithmetic import SoupRecipe, check_alike, combined, own_network, start_of
from mtrain.versions import versions


def make(
    recipe: SoupRecipe,
    run: Run,
    report: Reporter,
    *,
    shards: Path | str | None = None,
    device: str = "auto",
    workers: int = 2,
) -> dict[str, Any]:
    """Write the soup to the folder of `run`, and return its description; one of the same weights is kept.

    shards: folder of the training images, on which batch-normalization statistics are measured if there are any; by
    default that of the first run.

    Raises:
        UsageError: the networks differ in shape or start, or what was learnt is added in a network with batch
            normalization.
        RunError: a run is not finished, or the folder holds something else.
    """
    check_alike(recipe)
    networks = [own_network(one) for one in recipe.runs]
    identity = _identity(recipe, networks)
    if run.exists:
        known: dict[str, Any] = run.about().get(SOUP, {})
        if {name: known.get(name) for name in identity} != identity:
            raise RunError("another run has this name", where=run.path, remedy="give another --name")
        if run.state()[0] == "finished":
            report.note(f"{run.name}: exists already")
            return known
    _check_normalization(recipe, networks[0])
    network = _mixed(recipe, networks)
    layers = images = 0
    if batchnorm_adapt.layers_of(network) and statistics.differ(networks):
        layers, images = statistics.measure(network, recipe.added, shards, device, workers, report)
        found = f"statistics of {counted(layers, 'batch-normalization layer')} measured on {images} training images"
        report.note(f"{run.name}: {found}")
    if any(one.config().dense for one in recipe.runs):
        report.note(f"{run.name}: the decoder of masks and points is left out")
    soup = identity | {"batchnorm_layers": layers, "images": images}
    _write(run, recipe, network, soup)
    return soup


def _identity(recipe: SoupRecipe, networks: list[SharedNetwork]) -> dict[str, Any]:
    """What the weights of a soup are made of."""
    parts = [
        {"run": one.name, "weights": weights_digest(network), "factor": factor}
        for one, network, factor in zip(recipe.runs, networks, recipe.factors(), strict=True)
    ]
    return {"text": recipe.text(), "parts": parts}


def _check_normalization(recipe: SoupRecipe, network: SharedNetwork) -> None:
    if not recipe.averages and batchnorm_adapt.layers_of(network):
        raise UsageError(
            f"{network.name} has batch normalization, which each run adapted to its own tasks: what they learnt cannot "
            "be added or removed",
            remedy="average the runs, or use a network without it, such as a vision transformer",
        )


def _mixed(recipe: SoupRecipe, networks: list[SharedNetwork]) -> SharedNetwork:
    """The first network, with the combined weights."""
    states, factors = [network.body.state_dict() for network in networks], recipe.factors()
    if not recipe.averages:
        states, factors = [*states, start_of(recipe.added[0]).body.state_dict()], [*factors, 1 - sum(factors)]
    networks[0].body.load_state_dict(combined(states, factors))
    return networks[0]


def _heads(recipe: SoupRecipe) -> dict[str, Head]:
    """A head for each task of the added runs that no removed run was trained on: the mean of those that there are."""
    gone = {task for one in recipe.removed for task in one.trained_on()}
    found: dict[str, list[Head]] = {}
    for one in recipe.added:
        for task, head in load_heads(one.heads).items():
            if task not in gone:
                found.setdefault(task, []).append(head)
    return {task: _mean(task, heads) for task, heads in found.items()}


def _mean(task: str, heads: list[Head]) -> Head:
    first = heads[0]
    if any(head.about.digest != first.about.digest or head.about.classes != first.about.classes for head in heads):
        raise UsageError(f"the runs were trained on different shards of {task}", remedy="combine runs of one pool")
    layers = [_scaled_as(head, first) for head in heads]
    weight, bias = (torch.stack(parts).mean(0).float() for parts in zip(*layers, strict=True))
    return replace(first, weight=weight, bias=bias)


def _scaled_as(head: Head, first: Head) -> tuple[Tensor, Tensor]:
    """Weight and bias of a head in the scaling of `first`: runs that trained on other sets standardized numbers by
    another mean and deviation.
    """
    own, other = head.about.scaling or Scaling(), first.about.scaling or Scaling()
    scale, shift = own.deviation / other.deviation, (own.mean - other.mean) / other.deviation
    return head.weight.double() * scale, head.bias.double() * scale + shift


def _write(run: Run, recipe: SoupRecipe, network: SharedNetwork, soup: Mapping[str, Any]) -> None:
    heads = _heads(recipe)
    if not heads:
        raise UsageError("no task remains", found=recipe.text(), remedy="remove fewer runs")
    with run.locked():
        run.write("config.json", _about(recipe, heads, soup))
        tensors = {f"{task}.{part}": getattr(head, part) for task, head in heads.items() for part in ("weight", "bias")}
        made = {NETWORK: weights_digest(network)}
        write_tensors(run.heads, tensors, {"tasks": {task: asdict(head.about) for task, head in heads.items()}} | made)
        made |= {SETTINGS: settings_digest(run), "run": run.name}
        save_weights(network.body, run.weights, network.name, **made, **run.seen().json())
        write_state(run, "finished", run.config().iterations)


def _about(recipe: SoupRecipe, heads: Mapping[str, Head], soup: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.json: the settings of the first run, and what all the runs have seen; a run that was
    removed has been seen too.
    """
    first, *others = recipe.runs
    about, seen = first.about(), first.seen()
    for other in others:
        seen = seen | other.seen()
    left = [name for name in first.left_out() if all(name in other.left_out() for other in others)]
    config = about["config"] | {"dense": False, "leave_out": left, "drop": None, "tasks": []}
    return {
        "config": config,
        **{name: about[name] for name in ("network", "choice") if name in about},
        "pool": {task: head.about.digest for task, head in heads.items()},
        "left_out": left,
        **seen.json(),
        "start": Seen().json(),
        "ranks": 1,
        "versions": versions(),
        "git": git_state(),
        SOUP: dict(soup),
    }
