"""Have gradients on CUDA be the same bits each time they are computed: a resumed run ends as an undisturbed one.

cuDNN is set to choose deterministic kernels. Those of attention sum in any order as soon as an image has more than 256
tokens, unless they run in torch's deterministic mode
(https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html). Operators that have no
deterministic form raise in that mode, so a network with attention is tried on two images first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mtrain.model.network import SharedNetwork

MODE: Any = torch.utils.deterministic
TRIED = 2  # images
MISSING = "does not have a deterministic implementation"  # in the message of torch


def make_exact(shared: SharedNetwork, size: int, device: torch.device, note: Callable[[str], None]) -> None:
    """Prepare this process and this network, which is on `device`; note what cannot be the same bits each time.

    size: side of the images, in pixels.
    """
    if device.type != "cuda":
        return
    torch.backends.cudnn.deterministic = True
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the deterministic mode requires it
    shared.strict = has_attention(shared, size)
    if shared.strict:
        torch.backends.cuda.enable_cudnn_sdp(False)  # its backward pass has no deterministic form
    if shared.strict and (operator := inexact_operator(shared, size)):
        shared.strict = False
        note(f"{shared.name}: {operator} {MISSING}; a resumed or repeated run differs in the last bits")


@contextmanager
def exact_gradients(shared: SharedNetwork) -> Iterator[None]:
    """Compute gradients inside in torch's deterministic mode, if this network needs it."""
    if not shared.strict:
        yield
        return
    before, filled = torch.are_deterministic_algorithms_enabled(), MODE.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    MODE.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        MODE.fill_uninitialized_memory = filled


class _Attention(TorchFunctionMode):
    """Notices whether attention is computed."""

    found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found = self.found or func is F.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def has_attention(shared: SharedNetwork, size: int) -> bool:
    """Whether the network calls torch's attention."""
    was_training, attention = shared.training, _Attention()
    with attention:
        shared.eval()(_images(shared, size))
    shared.train(was_training)
    return attention.found


def inexact_operator(shared: SharedNetwork, size: int) -> str | None:
    """The first operator of the backward pass that has no deterministic form; None if there is none."""
    was_training = shared.training
    try:
        with _autocast(shared):
            features = shared.eval()(_images(shared, size))
        with exact_gradients(shared):
            features.float().sum().backward()
    except RuntimeError as error:
        if MISSING not in str(error):
            raise
        return str(error).partition(f" {MISSING}")[0]
    finally:
        shared.train(was_training)
        shared.zero_grad(set_to_none=True)
    return None


def _images(shared: SharedNetwork, size: int) -> Tensor:
    """Zeros on the device of the network; they need gradients, as what is trained of the network may be small."""
    return torch.zeros((TRIED, 3, size, size), device=shared.mean.device).requires_grad_()


def _autocast(shared: SharedNetwork) -> torch.autocast:
    device = shared.mean.device.type
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")
