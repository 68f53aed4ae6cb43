"""Feature maps inside a shared network: find the modules that produce them, and compute them with the features.

A network whose maps shrink from stage to stage has one map for each of the strides 4, 8, 16 and 32 that occur in it:
the output of the last module at that size that is not part of a block that changes the size. A vision transformer,
whose tokens keep one size, provides the tokens of four evenly spaced blocks, from which a pyramid is built as in Li et
al., "Exploring plain vision transformer backbones for object detection", 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtrain.errors import UsageError

STRIDES = (4, 8, 16, 32)
CHAINS = (nn.Sequential, nn.ModuleList)

Kind = Literal["channels first", "channels last", "tokens"]


@dataclass(frozen=True)
class FeatureMap:
    """One map: the module that outputs it, its number of channels, and the layout of the output.

    prefix: number of tokens before the patch tokens.
    """

    module: str
    channels: int
    kind: Kind
    prefix: int = 0

    def map_of(self, output: Tensor) -> Tensor:
        """Return the module's output as (N, channels, h, w)."""
        if self.kind == "channels first":
            return output
        if self.kind == "channels last":
            return output.permute(0, 3, 1, 2)
        patches = output[:, self.prefix :]
        side = math.isqrt(patches.shape[1])
        return patches.transpose(1, 2).reshape(len(output), -1, side, side)


@dataclass(frozen=True)
class _Output:
    """The name of a module and the shape of its output."""

    module: str
    shape: tuple[int, ...]

    @property
    def kind(self) -> Kind | None:
        """The layout of a square map in the output; None if the output is not one."""
        if len(self.shape) == 3:
            return "tokens"
        if len(self.shape) != 4:
            return None
        if self.shape[2] == self.shape[3]:
            return "channels first"
        return "channels last" if self.shape[1] == self.shape[2] else None

    @property
    def side(self) -> int:
        """Side of a two-dimensional map; 0 for any other output."""
        return {"channels first": self.shape[-1], "channels last": self.shape[1]}.get(self.kind or "", 0)

    @property
    def channels(self) -> int:
        return self.shape[1] if self.kind == "channels first" else self.shape[-1]


def levels_of(body: nn.Module, size: int, name: str) -> tuple[FeatureMap, ...]:
    """Return the maps that `body` computes from images of `size` pixels, from fine to coarse or early to late.

    Raises:
        UsageError: the network has no maps.
    """
    outputs = _outputs(body, size)
    levels = _pyramid(body, outputs, size)
    if len(levels) < 2:
        levels = _blocks(body, outputs) or levels
    if not levels:
        raise UsageError(
            f"{name} gives no maps that masks or points could be found in", remedy="choose another --backbone"
        )
    return levels


def features_and_maps(
    network: nn.Module, body: nn.Module, levels: Sequence[FeatureMap], images: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Run `network`, which contains `body`, once; return its features and the maps (N, channels, h, w) of `levels`."""
    found: dict[str, Tensor] = {}
    with _listening(body, {level.module for level in levels}, lambda name, output: found.__setitem__(name, output)):
        features: Tensor = network(images)
    return features, [level.map_of(found[level.module]) for level in levels]


class WithMaps(nn.Module):
    """The same as a module, for torch.compile. Its hooks stay in `body`, and do nothing when others run `network`."""

    def __init__(self, network: nn.Module, body: nn.Module, levels: Sequence[FeatureMap]) -> None:
        super().__init__()
        self.network, self.levels = network, tuple(levels)
        self._found: dict[str, Tensor] = {}
        self._listens = False
        for name in sorted({level.module for level in levels}):
            body.get_submodule(name).register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            if self._listens:
                self._found[name] = output

        return keep

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what `features_and_maps` returns."""
        self._listens = True
        try:
            features: Tensor = self.network(images)
            return features, [level.map_of(self._found[level.module]) for level in self.levels]
        finally:
            self._listens = False
            self._found.clear()


@torch.no_grad()
def _outputs(body: nn.Module, size: int) -> list[_Output]:
    """Return the outputs of all modules for one image, in the order in which the modules finish."""
    found: list[_Output] = []
    names = {name for name, _ in body.named_modules() if name}
    was_training = body.training
    device = next(body.parameters()).device
    with _listening(body.eval(), names, lambda name, output: found.append(_Output(name, tuple(output.shape)))):
        body(torch.zeros(1, 3, size, size, device=device))
    body.train(was_training)
    return found


@contextmanager
def _listening(body: nn.Module, names: set[str], tell: Any) -> Iterator[None]:
    """Call `tell(name, output)` whenever one of these modules outputs a tensor."""

    def hook(name: str) -> Any:
        return lambda _module, _inputs, output: tell(name, output) if isinstance(output, Tensor) else None

    handles = [body.get_submodule(name).register_forward_hook(hook(name)) for name in sorted(names)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pyramid(body: nn.Module, outputs: Sequence[_Output], size: int) -> tuple[FeatureMap, ...]:
    sides = {output.module: output.side for output in outputs}
    last: dict[int, _Output] = {}
    for output in outputs:
        if output.side > 1 and not _changes_size(body, output, sides):
            last[output.side] = output
    chosen = [min(last, key=lambda side: abs(math.log(size / side / stride))) for stride in STRIDES if last]
    return tuple(
        FeatureMap(last[side].module, last[side].channels, last[side].kind or "channels first")
        for side in sorted(set(chosen), reverse=True)
    )


def _changes_size(body: nn.Module, output: _Output, sides: dict[str, int]) -> bool:
    """Whether the module is part of a block whose output has another size; a plain chain does not count as a block."""
    parents = output.module.split(".")[:-1]
    around = (".".join(parents[:depth]) for depth in range(1, len(parents) + 1))
    return any(
        sides.get(name, 0) not in (0, output.side) and type(body.get_submodule(name)) not in CHAINS for name in around
    )


def _blocks(body: nn.Module, outputs: Sequence[_Output]) -> tuple[FeatureMap, ...]:
    """Return the tokens of four blocks in the longest chain of modules whose tokens have the same shape."""
    chains: dict[tuple[str, tuple[int, ...]], list[_Output]] = {}
    for output in outputs:
        parent = output.module.rpartition(".")[0]
        if output.kind == "tokens" and parent and type(body.get_submodule(parent)) in CHAINS:
            chains.setdefault((parent, output.shape), []).append(output)
    blocks = max(chains.values(), key=len, default=[])
    # if the number of tokens changes along the chain, they are no longer in row order
    if not blocks or len(blocks) < len(list(body.get_submodule(blocks[0].module.rpartition(".")[0]).children())):
        return ()
    tokens = blocks[0].shape[1]
    prefix = int(getattr(body, "num_prefix_tokens", tokens - math.isqrt(tokens) ** 2))
    if math.isqrt(tokens - prefix) ** 2 != tokens - prefix:
        return ()
    chosen = [blocks[math.ceil((part + 1) * len(blocks) / len(STRIDES)) - 1] for part in range(len(STRIDES))]
    return tuple(FeatureMap(block.module, block.channels, "tokens", prefix) for block in chosen)
