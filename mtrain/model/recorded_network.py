"""A frozen network that is recorded as a CUDA graph once it has run on many batches of one shape."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrain.model.inference import Inference, Network
from mtrain.model.recording import CudaGraph, Recording

WORTH = 16  # batches before the recording: it takes about as long as is saved on as many
FORM = 0  # there is one


def repeated(network: Network, inference: Inference) -> Network:
    """The network for many batches: on CUDA, one that is recorded."""
    cuda = inference.device.type == "cuda"
    return RecordedNetwork(network, inference, CudaGraph(inference.device)) if cuda else network


class RecordedNetwork:
    """Runs a network on batches (n, 3, S, S); those of the shape of the first one are recorded, and replayed after it.

    The processor then launches one graph for each batch, and has time for what surrounds it. A recording is used only
    if its first replay gives the bits of the network; otherwise the network runs as it is.
    """

    def __init__(self, network: Network, inference: Inference, recording: Recording) -> None:
        self.network, self.inference, self.recording = network, inference, recording
        self.shape: torch.Size | None = None  # of the batches that are counted
        self.done = 0
        self.refused = False
        self.images: Tensor | None = None  # what the recording reads
        self.results: Tensor | None = None  # and what it writes, once it is used

    def __call__(self, images: Tensor) -> Tensor:
        """The results of a batch, copied to separate memory."""
        if self.shape is None:
            self.shape = images.shape
        if images.shape != self.shape or self.refused:
            return self.network(images)
        if self.images is not None and self.results is not None:
            self.images.copy_(images)
            self.recording.replay(FORM)
            return self.results.clone()
        self.done += 1
        return self.network(images) if self.done <= WORTH else self._recorded(images)

    def _recorded(self, images: Tensor) -> Tensor:
        """Run the network on a batch, record it, and replay it: the results must agree."""
        expected = self.network(images)
        try:
            self.images = images.clone()
            with self.recording.running(), self.recording.record(FORM), self._casts_inside():
                found = self.network(self.images)
            self.recording.replay(FORM)
            same = torch.equal(found, expected)
        except RuntimeError:  # the class of all errors of CUDA, too little memory among them
            same = False
        if same:
            self.results = found
        else:
            self.refused, self.images = True, None
            self.recording.release(FORM)
        return expected

    def _casts_inside(self) -> torch.autocast:
        """Weights that are cast outside are gone when the recording is replayed: they are cast in it."""
        device, low = self.inference.device.type, self.inference.dtype == torch.bfloat16
        return torch.autocast(device, torch.bfloat16, enabled=low, cache_enabled=False)
