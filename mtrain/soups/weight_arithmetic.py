"""Linear combinations of the weights of runs that began from the same weights.

W = sum of f_i W_i + (1 - sum of f_i) W_start. Factors of 1/n average n runs (Wortsman et al., "Model soups", ICML
2022). Factors of f and -f add and remove what runs have learnt, W_i - W_start (Ilharco et al., "Editing models with
task arithmetic", ICLR 2023); of a run with low-rank updates, that is its updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from mtrain.backbones.card import BackboneCard
from mtrain.errors import UsageError
from mtrain.model.frozen import weights_digest
from mtrain.model.network import SharedNetwork, shared_network
from mtrain.model.weight_files.weights import StateDict
from mtrain.runs.belonging import check_weights
from mtrain.runs.run_folder import Run


@dataclass(frozen=True)
class SoupRecipe:
    """What a soup is made of. factor: of what each run has learnt; None for the average of `added`."""

    added: tuple[Run, ...]
    removed: tuple[Run, ...] = ()
    factor: float | None = None

    @property
    def runs(self) -> tuple[Run, ...]:
        return self.added + self.removed

    @property
    def averages(self) -> bool:
        return self.factor is None and not self.removed

    def factors(self) -> list[float]:
        """The factor of each run, in the order of `runs`."""
        if self.averages:
            return [1 / len(self.added)] * len(self.added)
        factor = 1.0 if self.factor is None else self.factor
        return [factor] * len(self.added) + [-factor] * len(self.removed)

    def text(self) -> str:
        """What it is, in words."""
        names = ", ".join(run.name for run in self.added)
        if self.averages:
            return f"the average of the weights of {names}"
        factor = "" if self.factor is None else f"{self.factor:g} x "
        gone = f", without that of {', '.join(run.name for run in self.removed)}" if self.removed else ""
        return f"the start plus {factor}what was learnt by {names}{gone}"


def check_alike(recipe: SoupRecipe) -> None:
    """Raises:
    UsageError: too few runs, one run twice, or networks that differ in shape or in the weights that they began from.
    RunError: a run is not finished.
    """
    first, *others = recipe.runs
    if recipe.averages and not others:
        raise UsageError("one run has nothing to be averaged with", found=first.name, remedy="name two or more")
    paths = [run.path.resolve() for run in recipe.runs]
    if twice := [run for run, path in zip(recipe.runs, paths, strict=True) if paths.count(path) > 1]:
        raise UsageError("a run is named twice", found=twice[0].name, remedy="name each once")
    for run in recipe.runs:
        run.check_finished()
        check_weights(run)
    for run in others:
        for what, one, other in _compared(first, run):
            if one != other:
                raise UsageError(
                    f"{first.name} and {run.name} differ in {what}, so their weights cannot be combined",
                    found=f"{one} and {other}",
                    remedy="combine runs of one network that began from the same weights",
                )


def _compared(one: Run, other: Run) -> Iterator[tuple[str, str, str]]:
    """What has to be the same of two runs: its name, and what either has."""
    yield "their network", _network(one), _network(other)
    yield "the size of their images", str(one.config().size), str(other.config().size)
    starts = [(config.weights, config.weights_key) for config in (one.config(), other.config())]
    if starts[0] == starts[1] and starts[0][0] != "random":
        return
    yield "the weights that they began from", _start(one), _start(other)


def _network(run: Run) -> str:
    network = run.network()
    return f"{network.name} {network.digest[:8]}" if isinstance(network, BackboneCard) else network


def _start(run: Run) -> str:
    """The weights that a run began from: as they are called, or by the digest of their content."""
    config = run.config()
    if config.weights == "imagenet":
        return "imagenet"
    if config.weights == "random":
        return f"random weights of seed {config.seed}"
    return f"a file with the digest {weights_digest(start_of(run))[:8]}"


def start_of(run: Run) -> SharedNetwork:
    """The network that a run began from."""
    config = run.config()
    torch.manual_seed(config.seed)
    return shared_network(run.network(), config.weights, config.weights_key)


def own_network(run: Run) -> SharedNetwork:
    """The network of a finished run."""
    return shared_network(run.network(), run.weights)


def combined(states: Sequence[StateDict], factors: Sequence[float]) -> StateDict:
    """The combination of state dicts of one network, summed in float64. Whole numbers are those of the first."""
    found: StateDict = {}
    for name, first in states[0].items():
        if not first.is_floating_point():
            found[name] = first.clone()
            continue
        parts = [factor * state[name].double() for state, factor in zip(states, factors, strict=True)]
        found[name] = torch.stack(parts).sum(0).to(first.dtype)
    return found
