"""Move batches to the device: on CUDA, the next one is copied while the network processes the previous one.

The pixels are fetched directly from the memory that the loader's workers write to: it is page-locked, and a part of it
is reused only after the copy from it is complete.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from mtrain.data.batches.batch import Batch

ON_THEIR_WAY = 2  # batches that the device may be copying at once


def on_device(
    batches: Iterable[Batch], device: torch.device, send: Callable[[Batch, int], Batch] | None = None
) -> Iterator[Batch]:
    """The batches, with pixels, labels and flips on the device.

    send: sends a batch, given its position, in another way than `Batch.to`.

    The memory of the last `ON_THEIR_WAY` of `batches` must stay as it is; it may be reused when more are requested.
    """
    if device.type != "cuda":
        yield from batches if send is None else map(send, batches, itertools.count())
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    copies: deque[torch.cuda.Event] = deque()
    for position, batch in enumerate(batches):
        with torch.cuda.stream(stream):
            sent = batch.to(device) if send is None else send(batch, position), stream.record_event()
        copies.append(sent[1])
        if ahead is not None:
            yield _arrived(*ahead)
        ahead = sent
        if len(copies) == ON_THEIR_WAY:
            copies.popleft().synchronize()  # the next batch may be written over this one
    if ahead is not None:
        yield _arrived(*ahead)


@contextmanager
def page_locked(tensors: Sequence[Tensor]) -> Iterator[bool]:
    """Page-lock the memory of these tensors, so that a device copies from it without the processor.

    Yields whether that was possible. The memory is released after the device has done all its work.
    """
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    locked = []
    for tensor in tensors:
        if int(runtime.cudaHostRegister(tensor.data_ptr(), tensor.numel() * tensor.element_size(), 0)):
            break
        locked.append(tensor)
    try:
        yield len(locked) == len(tensors)
    finally:
        if locked:
            torch.cuda.synchronize()
        for tensor in locked:
            runtime.cudaHostUnregister(tensor.data_ptr())


def _arrived(batch: Batch, event: torch.cuda.Event) -> Batch:
    """The batch, ready for work queued from now on. Its memory is not reused before that work is done."""
    now = torch.cuda.current_stream(batch.pixels.device)
    now.wait_event(event)
    for tensor in batch:
        if tensor.device == batch.pixels.device:
            tensor.record_stream(now)
    return batch
