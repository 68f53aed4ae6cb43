"""torch.compile, with a fallback where it does not work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mtrain.model.dense.maps import WithMaps, features_and_maps
from mtrain.model.network import MultiHead

Features = Callable[[Tensor], tuple[Tensor, Sequence[Tensor]]]
"""Prepared images (N, 3, H, W) -> features (N, num_features), and the maps for the decoder, none without one."""
Decode = Callable[[Sequence[Tensor], Tensor], Tensor]
"""As `DenseNetwork.forward`."""


class Passes(NamedTuple):
    """What images go through: the shared network, and the decoder of masks and points, if there is one."""

    features: Features
    decode: Decode | None


def plain(model: MultiHead) -> Passes:
    """The networks as they are."""
    shared, dense = model.shared, model.dense
    if dense is None:
        return Passes(lambda images: (shared(images), ()), None)
    return Passes(lambda images: features_and_maps(shared, shared.body, dense.levels, images), dense)


def compiled(model: MultiHead, images: Tensor, note: Callable[[str], None], shares: Iterable[int] = ()) -> Passes:
    """The networks, compiled for training on batches like `images`. Where that fails, as they are, with a note.

    torch compiles lazily, so this runs a forward and a backward pass at once. The weights and statistics are left
    unchanged.

    shares: the numbers of images of a batch that may go through the decoder, which is compiled for each of them.
    """
    shared, dense = model.shared, model.dense
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    was_training = model.training, shared.training
    try:
        passes = _compiled(model)
        model.train()
        for share in [0] if dense is None else shares:
            _try(passes, images, share)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # the base class of the errors of torch's compiler
        note(f"torch.compile failed, so the network is not compiled: {_reason(error)}")
        return plain(model)
    finally:
        model.train(was_training[0])
        shared.train(was_training[1])
        model.zero_grad(set_to_none=True)
        _restore(model, before)
    return passes


def _compiled(model: MultiHead) -> Passes:
    """What torch compiles when it is first called."""
    if model.dense is None:
        network = cast(Callable[[Tensor], Tensor], torch.compile(model.shared))
        return Passes(lambda images: (network(images), ()), None)
    features = cast(Features, torch.compile(WithMaps(model.shared, model.shared.body, model.dense.levels)))
    return Passes(features, cast(Decode, torch.compile(model.dense, dynamic=False)))


def _try(passes: Passes, images: Tensor, share: int) -> None:
    """Run a forward and a backward pass, with the first `share` images through the decoder."""
    device = images.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        features, maps = passes.features(images)
        total = features.float().sum()
        if passes.decode is not None:
            slots = torch.arange(share, device=device)
            logits = passes.decode([level.index_select(0, slots) for level in maps], torch.zeros_like(slots))
            total = total + logits.float().sum()
    total.backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def _restore(network: nn.Module, before: dict[str, Tensor]) -> None:
    for name, buffer in network.named_buffers():
        buffer.copy_(before[name])


def _reason(error: BaseException) -> str:
    """The first informative line of the error: lines that end in a colon only introduce the next one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.strip().endswith(":")]
    return lines[0] if lines else type(error).__name__
