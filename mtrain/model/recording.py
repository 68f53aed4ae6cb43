"""Work of a CUDA device that is recorded once, as a CUDA graph, and repeated on the same memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch


class Recording(Protocol):
    """Records work of the device and repeats it: CUDA graphs, or in tests their double on the processor.

    It holds a recording of each form of the work; each form has its own shapes.
    """

    def running(self) -> AbstractContextManager[None]:
        """Run what is called inside where it will be recorded."""

    def record(self, form: int) -> AbstractContextManager[None]:
        """Record what is called inside, in place of what was recorded of this form before."""

    def replay(self, form: int) -> None:
        """Repeat it."""

    def release(self, form: int) -> None:
        """Discard what was recorded, and its memory."""

    def trim(self) -> None:
        """Return memory to the device that nothing uses."""


class CudaGraph:
    """The recordings of a CUDA device, by default the current one.

    They share their memory: one runs after the other, and nothing that one leaves there is read after the next.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.stream, self.memory = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run what is called inside on the stream of the recordings.

        A backward pass waits for the streams that its network ran on before. While it is recorded it may wait for no
        other stream: the recording of a network that ran on the default stream is invalid.
        """
        outside = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(outside)
        with torch.cuda.stream(self.stream):
            yield
        outside.wait_stream(self.stream)

    @contextmanager
    def record(self, form: int) -> Iterator[None]:
        """Record the kernels that are launched inside; none of them runs."""
        outside = torch.cuda.current_stream(self.stream.device)
        self.graphs[form] = torch.cuda.CUDAGraph()
        mode = "thread_local"  # loaders may call CUDA meanwhile
        try:
            with torch.cuda.graph(self.graphs[form], pool=self.memory, stream=self.stream, capture_error_mode=mode):
                yield
        finally:
            torch.cuda.set_stream(outside)  # after a failure, some versions of torch leave the other stream in place

    def replay(self, form: int) -> None:
        """Run the recorded kernels."""
        self.graphs[form].replay()

    def release(self, form: int) -> None:
        """Discard the recorded kernels, and their memory unless another recording uses it."""
        self.graphs.pop(form, None)

    def trim(self) -> None:
        """Return memory to the device that nothing uses: that of iterations before the recording, which has its own."""
        torch.cuda.empty_cache()
