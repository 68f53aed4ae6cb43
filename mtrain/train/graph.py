"""One iteration recorded as a CUDA graph and replayed: the device then waits for no launches from the processor.

A graph repeats the same kernels on the same addresses. So the inputs of an iteration lie in tensors that are allocated
once, learning rates are tensors too, and squares are padded to one size. Everything that depends on values on the
processor (which images, seeds, rates) is prepared before the iteration and copied into those tensors.

A recorded iteration is used only if it proves to be the iteration: the first replay and the same iteration without a
graph must end in the same bits. So a resumed training, which runs its first iterations without a graph, ends with the
weights of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mtrain.backbones.card import Interpolation
from mtrain.data import sampling
from mtrain.data.augment import LARGEST, mirrored_at_once, resized_at_once, room_for_squares
from mtrain.data.batch import Batch
from mtrain.model.network import MultiHead
from mtrain.train.optimizer import PhaseOptimizer

UNRECORDED = 3  # iterations of each phase before the recording: libraries allocate and choose kernels in the first ones


class Inputs(NamedTuple):
    """What an iteration reads, on the device: a batch of N images (see `Batch`) and what the processor knows of it."""

    pixels: Tensor  # uint8 (bytes,), with room for the largest batch; what follows the squares is arbitrary
    sides: Tensor  # int64 (N,)
    labels: Tensor  # int64 (N,)
    flips: Tensor  # bool (N, 2)
    looks: Tensor  # float32 (N, 16)
    tasks: Tensor  # int64 (N,): the number of each image's task
    scales: Tensor  # float64 (tasks,): from `loss.head_scales`

    @staticmethod
    def room(images: int, size: int, tasks: int, device: torch.device) -> Inputs:
        """Memory for the inputs of every iteration."""
        return Inputs(
            torch.zeros(room_for_squares(images, size), dtype=torch.uint8, device=device),
            torch.zeros(images, dtype=torch.int64, device=device),
            torch.zeros(images, dtype=torch.int64, device=device),
            torch.zeros((images, 2), dtype=torch.bool, device=device),
            torch.zeros((images, sampling.LOOKS_A_SLOT), dtype=torch.float32, device=device),
            torch.zeros(images, dtype=torch.int64, device=device),
            torch.zeros(tasks, dtype=torch.float64, device=device),
        )

    def fill(self, batch: Batch, scales: Tensor) -> None:
        """Copy a batch and the scales of its heads, from wherever they are, without waiting for the device."""
        self.pixels[: len(batch.pixels)].copy_(batch.pixels, non_blocking=True)
        tasks = torch.repeat_interleave(batch.counts)
        for room, values in zip(
            self[1:], (batch.sides, batch.labels, batch.flips, batch.looks, tasks, scales), strict=True
        ):
            room.copy_(values, non_blocking=True)

    def images(self, size: int, how: Interpolation) -> Tensor:
        """The images, resized and flipped: uint8 (N, 3, size, size), channels last."""
        images = resized_at_once(self.pixels, self.sides, size, LARGEST * size, how)
        return mirrored_at_once(images, self.flips)


class Recording(Protocol):
    """Records work of the device and repeats it: a CUDA graph, or in tests its double on the processor."""

    def record(self) -> AbstractContextManager[None]:
        """Record what is called inside."""

    def replay(self) -> None:
        """Repeat it."""


class CudaGraph:
    """The recording of CUDA devices."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()

    def record(self) -> AbstractContextManager[None]:
        """Record the kernels that are launched inside; none of them runs."""
        return torch.cuda.graph(self.graph, capture_error_mode="thread_local")  # loaders may call CUDA meanwhile

    def replay(self) -> None:
        """Run the recorded kernels."""
        self.graph.replay()


class RecordedIteration:
    """The iterations of one phase: the first ones as they are, then recorded.

    losses_of: the part of the iteration from its inputs to the loss of each task, (tasks,), all on the device.
    """

    def __init__(
        self, model: MultiHead, optimizer: PhaseOptimizer, losses_of: Callable[[Inputs], Tensor], inputs: Inputs,
        *, batch: int, recording: Callable[[], Recording], note: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.model, self.optimizer, self.losses_of, self.inputs = model, optimizer, losses_of, inputs
        self.batch, self.new_recording, self.note = batch, recording, note
        self.recording: Recording | None = None
        self.losses: Tensor | None = None
        self.done, self.refused = 0, False
        optimizer.use_tensors_as_rates()

    def __call__(self, batch: Batch, scales: Tensor, seed: int) -> Tensor:
        """Run one iteration. Returns the loss of each task summed over its samples: (tasks,)."""
        self.inputs.fill(batch, scales)
        torch.manual_seed(seed)
        if self.recording is None and not self.refused and self.done >= UNRECORDED:
            return self._recorded(seed)
        self.done += 1
        if self.recording is None:
            return self._run()
        self.recording.replay()
        assert self.losses is not None
        return self.losses.clone()

    def _run(self) -> Tensor:
        self.optimizer.zero_grad()
        losses = self.losses_of(self.inputs)
        (losses.sum() / self.batch).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(self.inputs.scales)
        return losses.detach()

    def _recorded(self, seed: int) -> Tensor:
        """Run one iteration without a graph, record it, and replay it from the same state: the results must agree."""
        tensors = list(self._state())
        before = [tensor.clone() for tensor in tensors]
        losses = self._run().clone()
        after = [tensor.clone() for tensor in tensors]
        _restore(tensors, before)
        torch.manual_seed(seed)
        recording = self.new_recording()
        try:
            self.optimizer.before_recording()
            with recording.record():
                found = self._run()
            _restore(tensors, before)  # a double on the processor has run it
            torch.manual_seed(seed)
            recording.replay()
        except RuntimeError as error:  # the class of all errors of CUDA
            return self._refuse(tensors, after, losses, str(error).partition("\n")[0])
        if not all(torch.equal(one, other) for one, other in zip([found, *tensors], [losses, *after], strict=True)):
            return self._refuse(tensors, after, losses, "its replay gives other bits than the iteration")
        self.recording, self.losses = recording, found
        return losses

    def _refuse(self, tensors: list[Tensor], after: list[Tensor], losses: Tensor, reason: str) -> Tensor:
        self.refused = True
        _restore(tensors, after)
        self.note(f"iterations run without a CUDA graph: {reason}")
        return losses

    def _state(self) -> Iterator[Tensor]:
        """All that an iteration changes."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        for kept in self.optimizer.state.values():
            yield from (value for value in kept.values() if isinstance(value, Tensor))


@torch.no_grad()
def _restore(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
