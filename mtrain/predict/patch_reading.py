"""Reads the patches of a slide in the loader's processes, each of which opens the slide for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import numpy as np
import torch
from numpy.typing import NDArray

from dpconvert.image import Image
from mtrain.data.batches.augment import LARGEST
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.loader import Batches, BatchReady, batches
from mtrain.errors import UserError

Opener = Callable[[], AbstractContextManager[Image]]
Patches = list[NDArray[np.uint8]]


def read_patches(
    opener: Opener, boxes: NDArray[np.int64], side: int, *, batch: int, workers: int
) -> Iterator[tuple[slice, Patches]]:
    """The patches (side, side, 3) of these boxes (N, 4), x, y, width, height at level 0, in order: `batch` at a time,
    with their rows in `boxes`. They are valid until the next ones are requested.

    workers: processes that read; 0: this one.

    Raises:
        ReadError: the slide cannot be read.
    """
    with PatchBatches(opener, boxes, side, batch) as dataset:
        done = 0
        for some in batches(dataset, range(len(dataset)), workers=min(workers, len(dataset)), lasting=1):
            patches = some.pixels.view(-1, side, side, 3).numpy()
            yield slice(done, done + len(patches)), list(patches)
            done += len(patches)


class PatchBatches(Batches):
    """Item i is the i-th block of patches, as they are read. As a context, it closes the slide of this process."""

    def __init__(self, opener: Opener, boxes: NDArray[np.int64], side: int, batch: int) -> None:
        super().__init__(-(-side // LARGEST), batch, 1)  # room for a square of `side`, not of `LARGEST` times that
        self.opener, self.boxes, self.side = opener, boxes, side
        self.image: Image | None = None
        self.closing = ExitStack()

    def __enter__(self) -> PatchBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()

    def __len__(self) -> int:
        return -(-len(self.boxes) // self.largest)

    def make(self, number: int, into: Batch) -> BatchReady | UserError:
        """Write one block of patches to `into`. Errors are returned, not raised."""
        boxes = self.boxes[number * self.largest : (number + 1) * self.largest].tolist()
        shape = (len(boxes), self.side, self.side, 3)
        room = into.pixels.numpy()[: int(np.prod(shape))].reshape(shape)
        try:
            self.image = self.image or self.closing.enter_context(self.opener())
            for target, (x, y, width, height) in zip(room, boxes, strict=True):
                target[...] = self.image.read(x, y, width, height, (self.side, self.side))
        except UserError as error:
            return error
        into.sides[: len(boxes)] = torch.tensor(self.side)
        return BatchReady(len(boxes))
