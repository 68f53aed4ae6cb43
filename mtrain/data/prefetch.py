"""Batches on the device: on CUDA, the next one is on its way while the network works on the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from mtrain.data.batch import Batch


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches with pictures, labels and flips on the device."""
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
    """The batch, for work that is queued from now on; its memory is not given away before that work is done."""
    now = torch.cuda.current_stream(batch.pixels.device)
    now.wait_event(event)
    for tensor in (batch.pixels, batch.labels, batch.flips):
        tensor.record_stream(now)
    return batch
