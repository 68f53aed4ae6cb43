"""Training images that stay decoded in the memory of the device: no worker decodes them again, none is copied there.

A batch has the same bytes as without: its workers leave room for the squares of resident images, and the device cuts
these squares from its memory. Which images and which places are drawn for an iteration is a function of its number.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dpconvert.image.decode import decode
from dpconvert.plural import counted
from dpconvert.runtime.processes import processors
from mtrain.data.batches.augment import LARGEST, place_of, put_square, room_for_squares
from mtrain.data.batches.batch import Batch
from mtrain.data.batches.images import Images
from mtrain.data.batches.sending import without_waiting
from mtrain.errors import UsageError

AT_ONCE = 1 << 22  # pixels that are cut at once: their indices take some hundred megabytes
GIB = 1 << 30


Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shapes:
    """Where each image lies in the memory of the device: an entry per image.

    start: in pixels, -1 where the image is not resident. height, width: of a resident image, as it is stored.
    """

    start: Numbers
    height: Numbers
    width: Numbers

    def side(self, index: int) -> int:
        """The side of the square of a resident image."""
        return int(min(self.height[index], self.width[index]))


class _ResidentTask(NamedTuple):
    """The images of a task: pixels (P, 3), and an entry per image."""

    pixels: npt.NDArray[np.uint8]
    height: Numbers
    width: Numbers


@dataclass(frozen=True)
class ResidentImages:
    """The pixels of resident images, uint8 (P, 3) on the device, and their shapes; the names of their tasks.

    apart: whether the memory of the device is not that of the batches.
    """

    pixels: Tensor
    shapes: Shapes
    tasks: tuple[str, ...]
    apart: bool

    def sent(self, batch: Batch, index: Numbers, place: Numbers) -> Batch:
        """The batch on the device, with the squares of resident images.

        index, place: the images of the batch in order, and the places of their squares. Of images that are not
        resident, another one of the same task may have been taken.
        """
        starts = np.cumsum([0, *(batch.sides.numpy() ** 2).tolist()])
        resident = self.shapes.start[index] >= 0
        pixels = batch.pixels
        if self.apart:
            pixels = torch.empty_like(batch.pixels, device=self.pixels.device)
            if len(others := np.flatnonzero(~resident)):  # in one copy, with what lies between them
                part = slice(3 * int(starts[others[0]]), 3 * int(starts[others[-1] + 1]))
                pixels[part].copy_(batch.pixels[part], non_blocking=True)
        slots = np.flatnonzero(resident)
        for some in _groups(slots, starts):
            self._cut(pixels.view(-1, 3), starts[some], index[some], place[some])
        return batch._replace(pixels=pixels).to(pixels.device)

    def _cut(self, into: Tensor, starts: Numbers, index: Numbers, place: Numbers) -> None:
        """Write the squares of resident images to the pixels (P, 3) of a batch, where they begin at `starts`."""
        shapes, corners, sides = self.shapes, [], []
        for image, where in zip(index.tolist(), place.tolist(), strict=True):
            side, top, left = place_of(int(shapes.height[image]), int(shapes.width[image]), where)
            corners.append(int(shapes.start[image]) + top * int(shapes.width[image]) + left)
            sides.append(side)
        if not self.apart:
            for side, corner, width, start in zip(sides, corners, shapes.width[index].tolist(), starts, strict=True):
                square = self.pixels.as_strided((side, side, 3), (3 * width, 3, 1), 3 * corner)
                into[start : start + side * side].view(side, side, 3).copy_(square)
            return
        # another device waits for each launch: the squares are cut by few of them, however many there are
        counts = np.square(np.array(sides, dtype=np.int64))
        begins, total = np.cumsum(counts) - counts, int(counts.sum())
        about = np.stack([counts, np.array(sides), np.array(corners), shapes.width[index], begins, starts])
        count, side, corner, width, begin, target = without_waiting(torch.from_numpy(about), into.device)
        which = torch.repeat_interleave(count, output_size=total)
        within = torch.arange(total, device=into.device) - begin[which]
        row = torch.div(within, side[which], rounding_mode="floor")
        source = corner[which] + row * width[which] + (within - row * side[which])
        into.index_copy_(0, target[which] + within, self.pixels.index_select(0, source))


def resident_images(images: Images, size: int, budget: int, device: torch.device) -> tuple[ResidentImages, str]:
    """Decode the images of as many tasks as fit into `budget` bytes of the device, small tasks first; and say which.

    A task with an unreadable image, or with images that the processor has to reduce, is left to the loader.

    Raises:
        UsageError: the device has less free memory than the budget.
    """
    if device.type == "cuda" and budget > (free := torch.cuda.mem_get_info(device)[0]):
        raise UsageError(
            "--resident: the device has less free memory",
            expected=f"{budget / GIB:.1f} GiB",
            found=f"{free / GIB:.1f} GiB",
            remedy="give less, and leave room for the network",
        )
    none = np.full(len(images), -1)
    shapes, kept, used = Shapes(none, none.copy(), none.copy()), dict[int, _ResidentTask](), 0
    for task in sorted(range(len(images.names)), key=lambda task: images.sizes[task]):
        stored = _decoded(images, range(images.starts[task], images.starts[task + 1]), size, budget - used)
        if stored is not None:
            kept[task] = stored
            own = slice(images.starts[task], images.starts[task + 1])
            areas = stored.height * stored.width
            shapes.start[own] = used // 3 + np.cumsum(areas) - areas
            shapes.height[own], shapes.width[own] = stored.height, stored.width
            used += stored.pixels.nbytes
    pixels = torch.empty((used // 3, 3), dtype=torch.uint8, device=device)
    done, names = 0, tuple(images.names[task] for task in sorted(kept))
    for task in list(kept):
        part = torch.from_numpy(kept.pop(task).pixels)
        pixels[done : done + len(part)].copy_(part)
        done += len(part)
    rest = len(images.names) - len(names)
    said = (
        f"resident: {counted(int((shapes.start >= 0).sum()), 'image')} of {counted(len(names), 'task')} in "
        f"{used / GIB:.2f} GiB of at most {budget / GIB:g} GiB of the device; {counted(rest, 'task')} by the loader"
    )
    return ResidentImages(pixels, shapes, names, device.type != "cpu"), said


def _decoded(images: Images, numbers: range, size: int, most: int) -> _ResidentTask | None:
    """The images of a task; None if they take more than `most` bytes, or cannot be kept."""
    found, used = list[npt.NDArray[np.uint8]](), 0
    with ThreadPoolExecutor(processors()) as threads:
        for first in range(0, len(numbers), 256):
            data = map(images.read, numbers[first : first + 256])
            try:
                some = [_kept(pixels, size, images) for pixels in threads.map(decode, data)]
            except (ValueError, OSError):  # the loader refuses or skips it when it is drawn
                return None
            used += sum(0 if pixels is None else pixels.nbytes for pixels in some)
            if used > most or any(pixels is None for pixels in some):
                return None
            found += [pixels for pixels in some if pixels is not None]
    height, width = (np.array([pixels.shape[axis] for pixels in found], dtype=np.int64) for axis in (0, 1))
    empty = [np.zeros((0, 3), np.uint8)]
    return _ResidentTask(np.concatenate(empty + [pixels.reshape(-1, 3) for pixels in found]), height, width)


def _kept(pixels: npt.NDArray[np.uint8], size: int, images: Images) -> npt.NDArray[np.uint8] | None:
    """What is stored of an image: all of it; its reduced form, if it is square and the loader reduces it, too; else
    None.
    """
    height, width = pixels.shape[:2]
    if min(height, width) <= LARGEST * size:
        return pixels
    if height != width:
        return None
    room = np.empty(room_for_squares(1, size), np.uint8)
    side = put_square(pixels, size, 0, room, images.how)
    return room[: 3 * side * side].reshape(side, side, 3).copy()


def _groups(slots: Numbers, starts: Numbers) -> Iterator[Numbers]:
    """The slots, in groups of about AT_ONCE pixels."""
    if len(slots):
        number = np.cumsum(starts[slots + 1] - starts[slots]) // AT_ONCE
        yield from np.split(slots, np.flatnonzero(np.diff(number)) + 1)
