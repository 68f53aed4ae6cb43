"""torch.compile, with a fallback where it does not work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

Network = Callable[[Tensor], Tensor]


def compiled(network: nn.Module, images: Tensor, note: Callable[[str], None]) -> Network:
    """The network, compiled for training on batches like `images`. Where that fails, the network itself, with a note.

    torch compiles lazily, so this runs one forward and one backward pass at once. The network's weights and statistics
    are left unchanged.
    """
    compiled_network = cast(Network, torch.compile(network))
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    was_training = network.training
    try:
        network.train()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
            features = compiled_network(images)
        features.float().sum().backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # the base class of the errors of torch's compiler
        note(f"torch.compile failed, so the network is not compiled: {_reason(error)}")
        return network
    finally:
        network.train(was_training)
        network.zero_grad(set_to_none=True)
        _restore(network, before)
    return compiled_network


@torch.no_grad()
def _restore(network: nn.Module, before: dict[str, Any]) -> None:
    for name, buffer in network.named_buffers():
        buffer.copy_(before[name])


def _reason(error: BaseException) -> str:
    """The first informative line of the error: lines that end in a colon only introduce the next one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.strip().endswith(":")]
    return lines[0] if lines else type(error).__name__
