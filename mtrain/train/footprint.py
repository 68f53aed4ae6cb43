"""Estimate the memory that an iteration takes from the shapes of its tensors, without allocating any of them.

The network is run on fake tensors, which have shapes, types and storages but no values
(https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/torch.compiler_fake_tensor.html). The storages that are
alive at the same time give the activations, whatever the network, the frozen parts, the precision and checkpointing.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

# torch has no public module of fake tensors
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode, UnsupportedFakeTensorException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from dpconvert.runtime import control_groups
from mtrain.config import FitConfig
from mtrain.model.network import MultiHead
from mtrain.train.backward import task_gradients

GIB = 2**30
# what networks raise that cannot be run without values
UNKNOWN = (DataDependentOutputException, UnsupportedFakeTensorException, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Footprint:
    """Bytes of memory on one device. optimizer: its states, and the moving average if there is one. tasks: gradients of
    the shared network for each task, of `--gradients` and `--log-cosines`.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    tasks: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.tasks

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "activations": self.activations,
        }
        parts |= {"gradients of each task": self.tasks} if self.tasks else {}
        return f"{_gib(self.total)} ({', '.join(f'{part} {_gib(size)}' for part, size in parts.items())})"


def footprint(config: FitConfig, model: MultiHead, device: torch.device, samples: int, ranks: int = 1) -> Footprint:
    """Return what an iteration after the warm-up takes on `device`; the decoder of masks and points is left out.

    model: prepared for `config.tune` and `config.checkpointing`, on any device. samples: images of a micro-batch.

    Raises:
        one of UNKNOWN: the network cannot be run without values.
    """
    moving = _bytes(parameter for parameter in model.parameters() if parameter.requires_grad)
    weights = _bytes((*model.parameters(), *model.buffers()))
    states = {"adamw": 2, "sgd": 1 if config.momentum else 0}[config.optimizer]
    average = weights if config.ema else 0
    return Footprint(
        weights=weights,
        gradients=moving * (1 if ranks == 1 else 2),  # the sums over the ranks are copies
        optimizer=states * moving + average,
        activations=_activations(config, model, device, samples),
        tasks=_of_tasks(config, model),
    )


def _of_tasks(config: FitConfig, model: MultiHead) -> int:
    """Return the bytes of a gradient for each task; and, to combine them, of their products in double precision."""
    tasks = len(model.heads)
    if tasks == 1 or config.tune == "heads" or (config.gradients == "mean" and not config.log_cosines):
        return 0
    moving = [parameter for parameter in model.shared.parameters() if parameter.requires_grad]
    columns = min(task_gradients.CHUNK, sum(parameter.numel() for parameter in moving))
    return tasks * (_bytes(moving) + columns * torch.float64.itemsize)


def remarks(config: FitConfig, model: MultiHead, device: torch.device, samples: int, ranks: int = 1) -> list[str]:
    """Return a line with the estimate, and another if the device has less."""
    try:
        found = footprint(config, model, device, samples, ranks)
    except UNKNOWN as error:
        return [
            f"memory of an iteration: not estimated, because the network depends on values ({type(error).__name__})"
        ]
    free = free_memory(device)
    lines = [f"memory of an iteration, estimated from shapes: {found}"]
    if free is not None:
        lines[0] += f"; {device} has {_gib(free)} free"
    if free is not None and found.total > free:
        saving = ["--accumulate N", "--checkpointing", "--tune last:N or lora:R", "a smaller --batch or --size"]
        lines.append(f"WARNING: this is more memory than {device} has free; these take less: {', '.join(saving)}")
    return lines


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device; for the CPU, those that programs can get. None: not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    host = control_groups.memory()
    return None if host is None else host.available


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts the bytes of the storages that exist, once each, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in tree_iter(found):
            if isinstance(value, Tensor):
                self.count(value)
        return found

    def count(self, tensor: Tensor) -> None:
        """Count the storage of a tensor until it is freed."""
        storage = tensor.untyped_storage()
        if (key := storage._cdata) not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += self.sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


def _activations(config: FitConfig, model: MultiHead, device: torch.device, samples: int) -> int:
    """Return the peak of an iteration's tensors; with checkpointing it is reached in the backward pass."""
    still, was_training = config.tune == "heads", model.shared.training
    model.shared.train(not still)
    alive = _Alive()
    with torch.random.fork_rng(devices=()), _no_generators(), FakeTensorMode(allow_non_fake_inputs=True), alive:
        own = {name: _like(tensor, device) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        before = alive.now
        images = torch.empty(samples, 3, config.size, config.size, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            named = {f"model.{name}": tensor for name, tensor in own.items()}
            backward = config.checkpointing and not still
            torch.func.functional_call(_Pass(model, still, backward=backward), named, (images,))
    model.shared.train(was_training)
    return alive.peak - before


@contextmanager
def _no_generators() -> Iterator[None]:
    """Checkpointing does not restore the generators of CUDA devices, whose states cannot be fake tensors."""
    before = torch.utils.checkpoint.get_device_states
    torch.utils.checkpoint.get_device_states = lambda *_tensors: ([], [])
    try:
        yield
    finally:
        torch.utils.checkpoint.get_device_states = before


class _Pass(nn.Module):
    """The network and its heads; the network without gradients if it stands still.

    backward: the backward pass too, which runs checkpointed parts again; it needs the tensors of `functional_call`.
    """

    def __init__(self, model: MultiHead, still: bool, *, backward: bool) -> None:
        super().__init__()
        self.model, self.still, self.backward = model, still, backward

    def forward(self, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(not self.still):
            features = self.model.shared(images)
        logits: Tensor = self.model.heads(features)
        if self.backward:
            with torch.autocast(images.device.type, enabled=False):
                logits.float().sum().backward()  # type: ignore[no-untyped-call]
        return logits


def _like(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the same shape, type and gradient on a device; a fake one within `FakeTensorMode`."""
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    return fake.requires_grad_(tensor.requires_grad) if tensor.is_floating_point() else fake


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _gib(number: int) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB / 10 else f"{number / 2**20:.0f} MiB"
