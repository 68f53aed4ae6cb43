"""Low-rank updates of the attention projections of a network (LoRA: Hu et al., ICLR 2022).

A projection is a linear layer for queries, keys or values, or the output layer beside it, whatever these are called, or
the joint weight of torch's `nn.MultiheadAttention`. Its layer keeps its place, its name and its weight, and gets two
more parameters. Reading the weight gives the updated one, because many networks pass the weight itself to a function
(BEiT, EVA-02 and Swin of timm; Swin and ViT of torchvision).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Protocol, cast

from torch import Tensor, nn
from torch.nn import functional as F

from mtrain.errors import UsageError
from mtrain.model.weight_files.weights import StateDict

UPDATES = ("lora_a", "lora_b")
INPUT = re.compile(r"qkvs?|qk|kv|[qkv]|query|key|value|(qkv|[qkv])_proj|w[qkv]|to_(qkv|kv|[qkv]|query|key|value)")
OUTPUT = re.compile(r"proj|(out|o)_proj|output|to_out|wo|merge|final")


class Updated(Protocol):
    """A layer with a frozen weight (out, in), and the trained parameters A (rank, in) and B (out, rank)."""

    of: str
    scale: float
    lora_a: nn.Parameter
    lora_b: nn.Parameter

    def merged(self) -> Tensor:
        """Return the weight (out, in) of the equivalent plain layer: W + scale B A."""


class LowRank(nn.Linear):
    """A linear layer with an update: y = W x + b + scale B (A x)."""

    of = "weight"
    scale: float
    lora_a: nn.Parameter
    lora_b: nn.Parameter

    def merged(self) -> Tensor:
        """Return the weight (out, in) of the equivalent plain layer."""
        return _frozen(self) + self.scale * (self.lora_b @ self.lora_a)

    weight = property(merged)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer, (..., in) -> (..., out), without gradients of the size of its weight."""
        update = F.linear(F.linear(input, self.lora_a), self.lora_b)
        return F.linear(input, _frozen(self), self.bias) + self.scale * update


class LowRankAttention(nn.MultiheadAttention):
    """Torch's attention with an update of its joint weight of queries, keys and values (3 width, width)."""

    of = "in_proj_weight"
    scale: float
    lora_a: nn.Parameter
    lora_b: nn.Parameter

    def merged(self) -> Tensor:
        """Return the joint weight of the equivalent plain layer."""
        return _frozen(self) + self.scale * (self.lora_b @ self.lora_a)

    in_proj_weight = property(merged)


def add_updates(body: nn.Module, rank: int, alpha: float, name: str) -> None:
    """Update all projections of attention in `body` by B A, times alpha / rank.

    A is initialized like torch's linear layers, and B with zeros: initially the network computes the same as before.

    Raises:
        UsageError: the network called `name` has no such linear layers.
    """
    layers = dict.fromkeys(layer for module in body.modules() for layer in _projections(module))
    for layer in layers:
        _update(layer, rank, alpha)
    if not layers:
        convolves = any(_parts(module, INPUT, nn.Conv2d) for module in body.modules())
        what = "computes its attention with convolutions" if convolves else "has no projections of attention"
        raise UsageError(f"--tune lora:{rank}: {name} {what}", remedy="use --tune all or heads, or another part")


def updates(body: nn.Module) -> Iterator[tuple[str, Updated]]:
    """Yield the name of each updated layer, and the layer."""
    return (
        (name, cast(Updated, layer))
        for name, layer in body.named_modules()
        if isinstance(layer, LowRank | LowRankAttention)
    )


def merged_state(body: nn.Module) -> StateDict:
    """Return the state dict of the plain network that is equivalent to `body`."""
    state = {name: value for name, value in body.state_dict().items() if name.rpartition(".")[2] not in UPDATES}
    return state | {f"{name}.{layer.of}": layer.merged().detach() for name, layer in updates(body)}


def adapter_state(body: nn.Module) -> StateDict:
    """Return only the updates: <layer>.lora_A (rank, in) and <layer>.lora_B (out, rank).

    lora_B includes the scale, so that the update of a layer is lora_B @ lora_A.
    """
    state: StateDict = {}
    for name, layer in updates(body):
        state |= {f"{name}.lora_A": layer.lora_a.detach(), f"{name}.lora_B": layer.scale * layer.lora_b.detach()}
    return state


def _projections(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
        yield from (module, module.out_proj)
    elif inputs := _parts(module, INPUT, nn.Linear):
        yield from (*inputs, *_parts(module, OUTPUT, nn.Linear))


def _parts(module: nn.Module, called: re.Pattern[str], kind: type[nn.Module]) -> list[nn.Module]:
    """Return the layers of this kind that are children with such names, or lie in these (beside a normalization)."""
    named = (child for name, child in module.named_children() if called.fullmatch(name))
    return [layer for child in named for layer in child.modules() if isinstance(layer, kind)]


def _update(layer: nn.Module, rank: int, alpha: float) -> None:
    """Give a layer its update. Its class is changed in place, as torch.nn.utils.parametrize does."""
    layer.__class__ = LowRankAttention if isinstance(layer, nn.MultiheadAttention) else LowRank
    updated = cast(Updated, layer)
    weight = _frozen(layer)
    updated.scale = alpha / rank
    updated.lora_a = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
    updated.lora_b = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
    nn.init.kaiming_uniform_(updated.lora_a, a=math.sqrt(5))


def _frozen(layer: nn.Module) -> Tensor:
    """Return the weight as it was: the attribute of its name gives the updated one."""
    weight = layer._parameters[cast(Updated, layer).of]
    assert weight is not None
    return weight
