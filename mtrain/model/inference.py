"""How a frozen network is run on many images: in which precision, how many at once, and how the results come back.

Features, validation, fine-tuned networks and predictions all run here. On the CPU it is float32, one batch of the
loader at a time. On CUDA it is bfloat16 as in training, `AT_ONCE` images at a time; workers decode into page-locked
memory, copies to the device and back overlap with the network, and no batch is waited for before the next is launched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtrain.backbones.card import Interpolation
from mtrain.data.batches.augment import resized_if_needed
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.image_batches import OrderedBatches
from mtrain.data.batches.loader import batches_on

LOADED = 64  # images that a worker prepares at once
AT_ONCE = 256  # images that a network processes at once on CUDA
RING = 4  # results that may be on their way back from CUDA; more would only take memory

Item = TypeVar("Item")
Network = Callable[[Tensor], Tensor]  # uint8 images (n, 3, S, S) -> results (n, D), both on the device


@dataclass(frozen=True)
class Inference:
    """Where and how a frozen network is run.

    at_once: the network processes this many images at a time, or one batch of the loader if that is more.
    ring: results that may be on their way back.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    at_once: int = 1
    ring: int = 1

    @classmethod
    def on(cls, device: torch.device) -> Inference:
        """How networks are run on this device."""
        return cls(device, torch.bfloat16, AT_ONCE, RING) if device.type == "cuda" else cls(device)

    @property
    def precision(self) -> str:
        """What the digest of cached results ends with: results of two precisions differ, and are never mixed."""
        return "" if self.dtype == torch.float32 else f" computed in {str(self.dtype).removeprefix('torch.')}"

    def joined(self, loaded: int) -> int:
        """How many batches of `loaded` images the network processes at a time."""
        return max(self.at_once // max(loaded, 1), 1)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The state in which a network is run: without gradients, in this precision, with kernels that do not depend on
        measurements of speed.
        """
        benchmark = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = False
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)
        try:
            with torch.inference_mode(), autocast:
                yield
        finally:
            torch.backends.cudnn.benchmark = benchmark


def outputs(
    network: Network, dataset: OrderedBatches, inference: Inference, *, workers: int, how: Interpolation = "bilinear"
) -> Iterator[NDArray[np.float32]]:
    """The results (n, D) of every image of `dataset`, in order. Each array is valid until the next one is requested.

    If the device has too little memory, fewer images are processed at a time.

    Raises:
        ShardError: an image cannot be read.
    """
    device, together = inference.device, inference.joined(dataset.largest)
    loaded = batches_on(device, dataset, range(len(dataset)), workers=workers, lasting=together)
    run = InParts(network, inference)
    results = (
        run(resized_if_needed(pixels.to(device, non_blocking=True), sides, dataset.size, how))
        for pixels, sides in joined(loaded, together)
    )
    for result in returned(results, sent_back, inference.ring):
        yield result.numpy()


class CopyEvent(Protocol):
    """The end of a copy, which can be waited for."""

    def synchronize(self) -> None:
        """Wait until the copy is complete."""


def returned(results: Iterable[Tensor], send: Callable[[Tensor, Tensor], CopyEvent], ring: int) -> Iterator[Tensor]:
    """The results, (n, D) float32, copied to the CPU. Each is valid until the next one is requested.

    The copies lie in `ring` buffers that are used in turn, page-locked if the results are on a CUDA device. So the next
    `ring` - 1 results are computed and copied while one is taken, and none is waited for before that.

    send: copies the second tensor to the first one, perhaps later.
    """
    buffers: list[Tensor] = []
    sent: deque[tuple[Tensor, CopyEvent]] = deque()
    for number, result in enumerate(results):
        if number < ring:
            buffers.append(_buffer(result))
        elif len(buffers[number % ring]) < len(result):
            buffers[number % ring] = _buffer(result)
        room = buffers[number % ring][: len(result)]
        sent.append((room, send(room, result)))
        if len(sent) == ring:
            yield _arrived(*sent.popleft())
    while sent:
        yield _arrived(*sent.popleft())


def sent_back(room: Tensor, result: Tensor) -> CopyEvent:
    """Copy a result to memory on the CPU, without waiting for it on CUDA."""
    room.copy_(result, non_blocking=True)
    return torch.cuda.current_stream(result.device).record_event() if result.device.type == "cuda" else Complete()


class Complete:
    def synchronize(self) -> None:
        """A copy within the memory of the processor is complete at once."""


def _arrived(room: Tensor, arrival: CopyEvent) -> Tensor:
    arrival.synchronize()
    return room


def _buffer(result: Tensor) -> Tensor:
    return torch.empty(result.shape, dtype=torch.float32, pin_memory=result.device.type == "cuda")


def joined(batches: Iterable[Batch], together: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The squares of `together` batches as one, before they are resized; the last ones may be fewer.

    Yields pixels (bytes,) and sides (N,), as `resized` takes them. Resizing more squares at once takes fewer launches.
    """
    for some in batched(batches, together):
        if len(some) == 1:
            yield some[0].pixels, some[0].sides
        else:
            used = [3 * int(batch.sides.square().sum()) for batch in some]
            pixels = [batch.pixels[:size] for batch, size in zip(some, used, strict=True)]
            yield torch.cat(pixels), torch.cat([batch.sides for batch in some])


def batched(items: Iterable[Item], count: int) -> Iterator[list[Item]]:
    """Lists of `count` items; the last one may be shorter."""
    iterator = iter(items)
    while some := list(islice(iterator, count)):
        yield some


def _one(batches: list[Tensor]) -> Tensor:
    return batches[0] if len(batches) == 1 else torch.cat(batches)


class InParts:
    """Runs a network on batches; returns float32. In parts, if a batch does not fit the device's memory."""

    def __init__(self, network: Network, inference: Inference) -> None:
        self.network, self.inference = network, inference
        self.most: int | None = None  # images that fit, once some did not

    def __call__(self, images: Tensor) -> Tensor:
        while (found := self._found(images)) is None:
            self.most = (self.most or len(images)) // 2
            torch.cuda.empty_cache()
        return found

    def _found(self, images: Tensor) -> Tensor | None:
        """The results as float32; None if there is too little memory, but perhaps enough for half of the images."""
        parts = torch.split(images, self.most or len(images))
        try:
            with self.inference.running():
                return _one([self.network(part).float() for part in parts])
        except torch.OutOfMemoryError:
            if len(parts[0]) == 1:
                raise
            return None
