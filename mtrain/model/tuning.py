"""Select the parameters of a shared network to train, by a specification, and their learning rates.

all      everything
heads    nothing in the shared network
norms    weights and biases of the normalization layers
bias     all biases (BitFit: Ben Zaken et al., ACL 2022)
last:N   the last N blocks of a transformer, and all layers after them
lora:R[:ALPHA]
         low-rank updates of rank R of the attention projections, scaled by ALPHA / R (LoRA: Hu et al., ICLR 2022);
         ALPHA defaults to R

Frozen parameters have no gradients, and the layers before the first trained one store nothing for the backward pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from dpconvert.plural import counted
from mtrain.errors import UsageError
from mtrain.model.low_rank import UPDATES, add_updates

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)
BLOCKS, BLOCK = "blocks", re.compile(r"blocks\.(\d+)\.")
BIAS = re.compile(r"(.*\.)?(bias|\w+_bias|bias_[ih]h_l\d+\w*)$")  # the latter two are those of attention and of LSTMs


@dataclass(frozen=True)
class Tune:
    """A parsed specification; `kind` is its first word."""

    kind: str
    number: int = 0
    alpha: float = 0.0

    @staticmethod
    def of(text: str) -> Tune:
        """Parse a specification that mtrain.config has validated."""
        kind, *numbers = text.split(":")
        number = int(numbers[0]) if numbers else 0
        return Tune(kind, number, float(numbers[1]) if len(numbers) > 1 else float(number))


def prepare(body: nn.Module, text: str, name: str) -> None:
    """Make the specified parameters of `body` trainable, freeze all others, and add low-rank updates if specified.

    Raises:
        UsageError: the network called `name` does not have such parts.
    """
    tune = Tune.of(text)
    if tune.kind == "all":
        return
    body.requires_grad_(False)
    if tune.kind == "lora":
        add_updates(body, tune.number, tune.alpha, name)
    for parameter in _moving(body, tune):
        parameter.requires_grad_(True)
    if tune.kind != "heads" and not any(parameter.requires_grad for parameter in body.parameters()):
        parts = {
            "norms": "normalization layers",
            "bias": "biases",
            "last": "sequence of blocks",
        }
        remedy = "use --tune all or heads, or another part"
        raise UsageError(f"--tune {text}: {name} has no {parts[tune.kind]}", remedy=remedy)
    if tune.kind == "last" and tune.number > (depth := len(getattr(body, BLOCKS, ()))):
        remedy = f"use --tune last:{depth} at most, or all"
        raise UsageError(f"--tune {text}: {name} has {counted(depth, 'block')}", remedy=remedy)


def check_pointing(body: nn.Module, name: str) -> None:
    """Recompute the activations of the network's blocks in the backward pass instead of storing them.

    Raises:
        UsageError: the network does not support this.
    """
    switch = getattr(body, "set_grad_checkpointing", None)
    if switch is None:
        raise UsageError(f"--checkpointing: {name} does not support it; networks of timm do", remedy="omit it")
    try:
        switch(True)
    except AssertionError:  # the answer of some networks of timm
        raise UsageError(
            f"--checkpointing: {name} does not support it; most networks of timm do", remedy="omit it"
        ) from None


def moved(body: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters."""
    return [parameter for parameter in body.parameters() if parameter.requires_grad]


def by_layer(body: nn.Module, decay: float, name: str) -> list[tuple[float, list[nn.Parameter]]]:
    """Return (learning-rate factor, trainable parameters) from the last layer, with factor 1, to the first.

    The rate of a block is `decay` times that of the next one; the layers before the blocks count as one more block.

    Raises:
        UsageError: the network has no sequence of blocks.
    """
    blocks = getattr(body, BLOCKS, None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList):
        raise UsageError(f"--layer-decay: {name} has no sequence of blocks", remedy="omit it")
    depth = len(blocks)
    groups: dict[int, list[nn.Parameter]] = {}
    for parameter_name, parameter in body.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_below_the_top(body, parameter_name, depth), []).append(parameter)
    return [(decay**below, groups[below]) for below in sorted(groups)]


def _moving(body: nn.Module, tune: Tune) -> Iterator[nn.Parameter]:
    if tune.kind == "norms":
        for module in body.modules():
            if _normalizes(module):
                yield from module.parameters(recurse=False)
    elif tune.kind == "last":
        depth = len(getattr(body, BLOCKS, ()))
        for name, parameter in body.named_parameters():
            if depth and _below_the_top(body, name, depth) <= tune.number:
                yield parameter
    elif tune.kind == "bias":
        yield from (parameter for name, parameter in body.named_parameters() if BIAS.match(name))
    elif tune.kind == "lora":
        yield from (p for name, p in body.named_parameters() if name.rpartition(".")[2] in UPDATES)


def _normalizes(module: nn.Module) -> bool:
    """Whether this is a normalization layer of torch, or of timm, whose classes have names such as RmsNorm2d."""
    return isinstance(module, NORMS) or "norm" in type(module).__name__.lower()


def _below_the_top(body: nn.Module, name: str, depth: int) -> int:
    """Return 0 for a layer after the blocks, 1 for the last block, and so on; depth + 1 before the first block."""
    if found := BLOCK.match(name):
        return depth - int(found[1])
    return depth + 1 if name.partition(".")[0] in _before_the_blocks(body) else 0


def _before_the_blocks(body: nn.Module) -> set[str]:
    """Return the names of the network's own parameters (tokens, positions), and of the modules that it made before its
    blocks (the stem or the embedding of patches): networks of timm make their parts in the order of their use.
    """
    parts = [name for name, _ in body.named_children()]
    return {name for name, _ in body.named_parameters(recurse=False)} | set(parts[: parts.index(BLOCKS)])
