"""One iteration recorded as a CUDA graph and replayed: the device then waits for no launches from the processor.

A graph repeats the same kernels on the same addresses. So the inputs of an iteration lie in tensors that are allocated
once, learning rates are tensors too, and squares are padded to one size. Everything that depends on values on the
processor (which images, seeds, rates) is prepared before the iteration and copied into those tensors. Where masks and
points are trained on, up to four numbers of images go through the decoder; each such form of the iteration has a graph.

A recorded iteration is used only if it proves to be the iteration: the first replay and the same iteration without a
graph must end in the same bits. So a resumed training, which runs its first iterations without a graph, ends with the
weights of an uninterrupted one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mtrain.data.batches.batch import Batch
from mtrain.model.network import MultiHead
from mtrain.model.recording import Recording
from mtrain.train.backward.exactness import exact_gradients
from mtrain.train.inputs import Inputs
from mtrain.train.optimizer import PhaseOptimizer

UNRECORDED = 3  # iterations of each phase before the recording: libraries allocate and choose kernels in the first ones
ATTEMPTS = 2  # at a recording: libraries may do something for the first time in it, which is not allowed then


class RecordedIteration:
    """The iterations of one phase: the first ones of each form as they are, then recorded.

    losses_of: the part of the iteration from its inputs to the loss of each task, (tasks,), all on the device.
    """

    def __init__(
        self,
        model: MultiHead,
        optimizer: PhaseOptimizer,
        losses_of: Callable[[Inputs], Tensor],
        inputs: Inputs,
        *,
        batch: int,
        recording: Recording,
        note: Callable[[str], None],
    ) -> None:
        self.model, self.optimizer, self.losses_of, self.inputs = model, optimizer, losses_of, inputs
        self.batch, self.recording, self.note = batch, recording, note
        self.losses: dict[int, Tensor] = {}  # of the recordings that are used, by form
        self.done: Counter[int] = Counter()  # iterations of each form that ran as they are
        self.refused = False  # nothing more is recorded
        optimizer.use_tensors_as_rates()

    def __call__(self, batch: Batch, scales: Tensor, seed: int) -> Tensor:
        """Run one iteration. Returns the loss of each task summed over its samples: (tasks,)."""
        self.inputs.fill(batch, scales)
        torch.manual_seed(seed)
        form = self.inputs.form
        if form in self.losses:
            self.recording.replay(form)
            return self.losses[form].clone()
        with self.recording.running():
            if self.done[form] >= UNRECORDED and not self.refused:
                losses = self._recorded(form, seed)
                self.recording.trim()
                return losses
            self.done[form] += 1
            return self._run()

    def _run(self) -> Tensor:
        self.optimizer.zero_grad()
        losses = self.losses_of(self.inputs)
        with exact_gradients(self.model.shared):
            (losses.sum() / self.batch).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(self.inputs.scales)
        return losses.detach()

    def _recorded(self, form: int, seed: int) -> Tensor:
        """Run one iteration without a graph, record it, and replay it from the same state: the results must agree."""
        tensors = list(self._state())
        before = [tensor.clone() for tensor in tensors]
        losses = self._run().clone()
        after = [tensor.clone() for tensor in tensors]
        reason = ""
        for _ in range(ATTEMPTS):
            try:
                found = self._replayed(form, tensors, before, seed)
            except RuntimeError as error:  # the class of all errors of CUDA
                reason = str(error).partition("\n")[0]
                continue
            if all(torch.equal(one, other) for one, other in zip([found, *tensors], [losses, *after], strict=True)):
                self.losses[form] = found
                return losses
            reason = "its replay gives other bits than the iteration"
            break
        self.refused = True
        _restore(tensors, after)
        self.recording.release(form)
        some = "some iterations" if self.losses else "iterations"
        self.note(f"{some} run without a CUDA graph: {reason}")
        return losses

    def _replayed(self, form: int, tensors: list[Tensor], before: list[Tensor], seed: int) -> Tensor:
        """The losses of an iteration that is recorded and replayed from the state `before`."""
        _restore(tensors, before)
        torch.manual_seed(seed)
        self.optimizer.before_recording()
        with self.recording.record(form):
            found = self._run()
        _restore(tensors, before)  # a double on the processor has run it
        torch.manual_seed(seed)
        self.recording.replay(form)
        return found

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
