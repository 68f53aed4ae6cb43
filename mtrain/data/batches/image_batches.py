"""The images of a batch: drawn for an iteration, of an epoch, or in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtrain.backbones.card import Interpolation
from mtrain.data import sampling
from mtrain.data.batches.augment import CENTRE, resized
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.images import Images
from mtrain.data.batches.loader import Batches, BatchReady, batches
from mtrain.data.batches.resident import Shapes
from mtrain.data.rows import Rows
from mtrain.data.targets import MasksAndPoints
from mtrain.data.task import Task
from mtrain.errors import ShardError, UserError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class BatchDraw:
    """The images of a batch, in order, with their augmentation."""

    index: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    flips: npt.NDArray[np.bool_]
    looks: npt.NDArray[np.float32] | None = None


class ImageBatches(Batches):
    """Batches of images drawn by number. With `skip`, an unreadable image is replaced by the next one of its task.

    targets: the masks and points of these images; None: they are not read. resident: shapes of images whose squares are
    left out, because the device has them.
    """

    def __init__(
        self,
        images: Images,
        size: int,
        largest: int,
        *,
        skip: bool = False,
        targets: MasksAndPoints | None = None,
        resident: Shapes | None = None,
    ) -> None:
        super().__init__(size, largest, len(images.names))
        self.images, self.skip, self.targets, self.resident = images, skip, targets, resident

    def room(self, *, shared: bool = False) -> Batch:
        """Memory for the largest batch."""
        objects = None if self.targets is None else self.targets.most
        width = self.images.width
        return Batch.room(self.largest, self.size, self.tasks, shared=shared, objects=objects, width=width)

    def drawn(self, number: int) -> BatchDraw:
        """The images of batch `number`."""
        raise NotImplementedError

    def make(self, number: int, into: Batch) -> BatchReady | UserError:
        """Write batch `number` to `into`, which has room for it. Errors are returned, not raised."""
        drawn = self.drawn(number)
        skipped: list[UserError] = []
        room, sides, used, dense = into.pixels.numpy(), into.sides.numpy(), 0, 0
        try:
            for slot, (index, place) in enumerate(zip(drawn.index.tolist(), drawn.place.tolist(), strict=True)):
                drawn.index[slot], sides[slot] = self._put(index, place, room[used:], into, dense, skipped)
                used += 3 * int(sides[slot]) ** 2
                dense += self._has_targets(index)
        except UserError as error:
            return error
        count = len(drawn.index)
        into.labels[:count] = torch.from_numpy(self.images.label[drawn.index])
        into.targets[:count] = torch.from_numpy(self.images.targets(drawn.index))
        into.flips[:count] = torch.from_numpy(drawn.flips)
        if drawn.looks is not None:
            into.looks[:count] = torch.from_numpy(drawn.looks)
        into.counts[:] = torch.from_numpy(np.bincount(self.images.task_of(drawn.index), minlength=self.tasks))
        return BatchReady(count, tuple(skipped), dense)

    def _has_targets(self, index: int) -> bool:
        return self.targets is not None and self.targets.has(index)

    def _put(
        self, index: int, place: int, room: npt.NDArray[np.uint8], into: Batch, dense: int, skipped: list[UserError]
    ) -> tuple[int, int]:
        """Write an image, or the next readable one of its task, to `room`, and its targets to entry `dense` of the
        batch. Returns its number and its side.
        """
        first = index
        while True:
            try:
                side, shape = self._put_pixels(index, place, room)
                if self.targets is not None and self.targets.has(index):
                    self.targets.put(index, shape, place, into, dense)
                return index, side
            except ShardError as error:
                index = self.images.after(index)
                if not self.skip or index == first:
                    raise
                skipped.append(error)

    def _put_pixels(self, index: int, place: int, room: npt.NDArray[np.uint8]) -> tuple[int, tuple[int, int]]:
        """Write the square of an image, unless it is resident. Returns its side, and height and width of the image."""
        resident = self.resident
        if resident is None or resident.start[index] < 0:
            return self.images.put(index, place, self.size, room)
        return resident.side(index), (int(resident.height[index]), int(resident.width[index]))


class TrainingBatches(ImageBatches):
    """Item i is the batch of iteration i. `slots` is this process's share of it.

    With `skip`, an unreadable image is replaced by the next one of its task, so that the batch still depends only on
    seed, iteration and slots. With `looks`, amounts of further augmentation are drawn.
    """

    def __init__(
        self,
        images: Images,
        size: int,
        seed: int,
        slots: range,
        stream: sampling.Stream,
        *,
        skip: bool = False,
        mixture: sampling.Mixture = sampling.UNIFORM,
        looks: bool = False,
        targets: MasksAndPoints | None = None,
        resident: Shapes | None = None,
    ) -> None:
        super().__init__(images, size, len(slots), skip=skip, targets=targets, resident=resident)
        self.seed, self.slots, self.stream, self.mixture, self.looks = seed, slots, stream, mixture, looks

    def drawn(self, number: int) -> BatchDraw:
        """The images of an iteration, in the order of tasks and rows."""
        drawn = sampling.draw(self.images.sizes, self.seed, number, self.slots, self.stream, self.mixture)
        index = self.images.starts[drawn.task] + drawn.row
        order = np.argsort(index, kind="stable")
        looks = sampling.looks(self.seed, number, order + self.slots.start) if self.looks else None
        return BatchDraw(index[order], drawn.place[order], drawn.flips[order], looks)


class EpochBatches(ImageBatches):
    """Item i is batch i % parts of epoch i // parts. An epoch holds every image once, in batches of nearly equal size.

    No batch is much smaller than the others, because batch normalization needs more than a single image.
    """

    def __init__(
        self, images: Images, size: int, seed: int, batch: int, *, targets: MasksAndPoints | None = None
    ) -> None:
        self.parts = -(-len(images) // batch)
        super().__init__(images, size, -(-len(images) // max(self.parts, 1)), targets=targets)
        self.seed = seed
        self._drawn = (
            -1,
            sampling.epoch(0, seed, 0),
        )  # the current epoch: drawing its order again for each batch would be slow

    def drawn(self, number: int) -> BatchDraw:
        """One batch of an epoch."""
        epoch, part = divmod(number, self.parts)
        if self._drawn[0] != epoch:
            self._drawn = (epoch, sampling.epoch(len(self.images), self.seed, epoch))
        start, end = (number * len(self.images) // self.parts for number in (part, part + 1))
        drawn = self._drawn[1]
        return BatchDraw(drawn.row[start:end].copy(), drawn.place[start:end], drawn.flips[start:end])


class OrderedBatches(ImageBatches):
    """Item i is the i-th block of `batch` images: every image once, in order, cropped at the centre."""

    def __init__(self, images: Images, size: int, batch: int, *, targets: MasksAndPoints | None = None) -> None:
        super().__init__(images, size, batch, targets=targets)

    def __len__(self) -> int:
        return -(-len(self.images) // self.largest)

    def drawn(self, number: int) -> BatchDraw:
        """The images of one block."""
        index = np.arange(number * self.largest, min((number + 1) * self.largest, len(self.images)))
        return BatchDraw(index, np.full(len(index), CENTRE), np.zeros((len(index), 2), dtype=bool))


def ordered_batches(
    task: Task,
    rows: Rows,
    *,
    size: int,
    batch: int,
    workers: int,
    device: torch.device = CPU,
    how: Interpolation = "bilinear",
) -> Iterator[tuple[Tensor, npt.NDArray[np.int64]]]:
    """Every image of `rows` once, in order: batches of uint8 (n, 3, size, size) on the device, each with the positions
    of its n images in `rows`.
    """
    dataset = OrderedBatches(Images([(task, rows)], how=how), size, batch)
    done = 0
    for item in batches(dataset, range(len(dataset)), workers=min(workers, len(dataset)), lasting=1):
        images = resized(item.pixels.to(device), item.sides, size, how=how)
        yield images, np.arange(done, done + len(images))
        done += len(images)
