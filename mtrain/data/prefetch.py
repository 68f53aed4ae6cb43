"""Moves batches to the device: on CUDA, the next one is copied while the network processes the previous one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from mtrain.data.batch import Batch


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches, with pixels, labels and flips on the device."""
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            sent = batch.to(device), stream.record_event()
        if ahead is not None:
            yield _arrived(*ahead)
        ahead = sent
    if ahead is not None:
        yield _arrived(*ahead)


def _arrived(batch: Batch, event: torch.cuda.Event) -> Batch:
    """The batch, ready for work queued from now on. Its memory is not reused before that work is done."""
    now = torch.cuda.current_stream(batch.pixels.device)
    now.wait_event(event)
    for tensor in (batch.pixels, batch.labels, batch.flips):
        tensor.record_stream(now)
    return batch
