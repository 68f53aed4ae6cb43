"""Pixels to network input: a worker cuts the square out of each picture; a whole batch of these is resized, flipped and
normalized on its device.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mtrain.backbones.card import Interpolation

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CENTRE = 1 << 31
LARGEST = 2  # times the size: a larger square is resized before it travels, to keep batches small


def square(image: Tensor, size: int, place: int = CENTRE, how: Interpolation = "bilinear") -> Tensor:
    """The largest square of `image` (3, h, w) at `place`, resized to (3, size, size); uint8 in and out.

    `place` is where the square lies along the longer side, in units of 2^-32 of the free pixels.
    """
    crop = _crop(image, place)
    return crop if crop.shape[-1] == size else _resized(crop, size, how)


def room_for_squares(pictures: int, size: int) -> int:
    """Bytes that so many squares take at most."""
    return pictures * 3 * (LARGEST * size) ** 2


def put_square(
    pixels: npt.NDArray[np.uint8], size: int, place: int, room: npt.NDArray[np.uint8], how: Interpolation = "bilinear"
) -> int:
    """Put the largest square of `pixels` (h, w, 3) at `place` into the beginning of `room` (bytes,); its side.

    It keeps its own pixels, unless it is larger than `LARGEST` times `size`. These are arrays: handling tensors would
    cost as much as the copy.
    """
    side, top, left = _place(pixels.shape[0], pixels.shape[1], place)
    crop = pixels[top : top + side, left : left + side]
    if side > LARGEST * size:
        crop = _resized(torch.from_numpy(crop).permute(2, 0, 1), size, how).permute(1, 2, 0).numpy()
        side = size
    room[: 3 * side * side].reshape(side, side, 3)[...] = crop
    return side


def resized(
    pixels: Tensor, sides: Tensor, size: int, flips: Tensor | None = None, how: Interpolation = "bilinear"
) -> Tensor:
    """Squares of different sizes to one size, each mirrored as its row of `flips` (N, 2) says: left-right, up-down.

    `pixels` (bytes,) holds them one after the other, `sides` (N,) lies on the CPU; uint8 (N, 3, size, size), channels
    last, on the device of `pixels`. On the CPU the pixels are those of `square`; other devices round once, after both
    directions, and differ by one level at most.
    """
    if pixels.device.type == "cpu":
        return _resized_one_by_one(pixels, sides, size, flips, how)
    images = _resized_at_once(pixels, sides, size, how)
    return images if flips is None else flip(images, flips)


def _resized_one_by_one(pixels: Tensor, sides: Tensor, size: int, flips: Tensor | None, how: Interpolation) -> Tensor:
    """In the processor's cache from the pixels to their place."""
    images = _room(len(sides), size, pixels.device)
    changes = itertools.repeat((False, False)) if flips is None else flips.tolist()
    squares = _squares(pixels, [(1, side) for side in sides.tolist()])
    for target, (image,), (horizontal, vertical) in zip(images, squares, changes, strict=False):
        image = image if image.shape[-1] == size else _resized(image, size, how)
        target.copy_(image.flip([2] * horizontal + [1] * vertical) if horizontal or vertical else image)
    return images


def _resized_at_once(pixels: Tensor, sides: Tensor, size: int, how: Interpolation = "bilinear") -> Tensor:
    """Two batched products with the weights of the interpolation: as many launches whatever the sides are.

    Squares are padded to the largest one; what the padding holds has the weight 0.
    """
    largest = int(sides.max())
    sides = sides.to(pixels.device, non_blocking=True)
    squares = _padded(pixels, sides, largest)
    if how == "bicubic":
        return _cubic_at_once(squares, _cubic_weights(sides, size, largest))
    weights = _triangle_weights(sides, size, largest)
    rows = (weights @ squares.flatten(2).float()).view(-1, size, largest, 3)
    rows = rows.transpose(2, 3).reshape(-1, size * 3, largest)
    columns = (rows @ weights.transpose(1, 2)).view(-1, size, 3, size)
    images = _room(len(sides), size, pixels.device)
    return images.copy_(columns.round_().transpose(1, 2))


def _cubic_at_once(squares: Tensor, weights: Tensor) -> Tensor:
    """Width first, whose result is rounded and kept within 0 to 255, then height, as Pillow and torch do it: what this
    cuts off depends on the order.
    """
    count, size, largest = weights.shape
    wide = (weights @ squares.transpose(1, 2).flatten(2).float()).round_().clamp_(0, 255)  # (N, x, y * 3)
    wide = wide.view(count, size, largest, 3).transpose(1, 2).reshape(count, largest, size * 3)
    images = (weights @ wide).round_().clamp_(0, 255).view(count, size, size, 3)
    return _room(count, size, squares.device).copy_(images.permute(0, 3, 1, 2))


def _padded(pixels: Tensor, sides: Tensor, largest: int) -> Tensor:
    """(N, largest, largest, 3) of squares that lie one after the other; past the end of each there is anything."""
    areas = sides * sides
    first = (areas.cumsum(0) - areas)[:, None, None]
    line = torch.arange(largest, device=pixels.device)
    places = first + line[:, None] * sides[:, None, None] + line
    found = pixels[: len(pixels) // 3 * 3].view(-1, 3)
    return found[places.clamp_(max=len(found) - 1)]


def _triangle_weights(sides: Tensor, size: int, largest: int) -> Tensor:
    """(N, size, largest) of each pixel of a row in each pixel of the resized row: bilinear, antialiased.

    A triangle over one pixel to either side, or over side / size of them where the square shrinks; rows sum to 1.
    """
    scales = (sides.float() / size)[:, None, None]
    centres = scales * (torch.arange(size, device=sides.device)[:, None] + 0.5)
    pixels = torch.arange(largest, device=sides.device)
    weights = (1 - (pixels + 0.5 - centres).abs() / scales.clamp(min=1)).clamp_(min=0)
    weights = weights.masked_fill_(pixels >= sides[:, None, None], 0)
    return weights / weights.sum(2, keepdim=True)


def _cubic_weights(sides: Tensor, size: int, largest: int) -> Tensor:
    """As `_triangle_weights`, of cubic convolution over two pixels to either side, antialiased, with a = -0.5 (Keys,
    Cubic convolution interpolation for digital image processing, 1981), as Pillow and torch have it.
    """
    scales = (sides.float() / size)[:, None, None]
    centres = scales * (torch.arange(size, device=sides.device)[:, None] + 0.5)
    pixels = torch.arange(largest, device=sides.device)
    x = (pixels + 0.5 - centres).abs() / scales.clamp(min=1)
    near = (1.5 * x - 2.5) * x.square() + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0))
    weights = weights.masked_fill_(pixels >= sides[:, None, None], 0)
    return weights / weights.sum(2, keepdim=True)


def _squares(pixels: Tensor, runs: list[tuple[int, int]]) -> Iterator[Tensor]:
    """For each run (pictures, side) these neighbours, (pictures, 3, side, side)."""
    at = 0
    for pictures, side in runs:
        end = at + pictures * 3 * side * side
        yield pixels[at:end].view(pictures, side, side, 3).permute(0, 3, 1, 2)
        at = end


def _room(pictures: int, size: int, device: torch.device) -> Tensor:
    return torch.empty((pictures, 3, size, size), dtype=torch.uint8, device=device, memory_format=torch.channels_last)


def _crop(image: Tensor, place: int) -> Tensor:
    side, top, left = _place(image.shape[-2], image.shape[-1], place)
    return image[:, top : top + side, left : left + side]


def _place(height: int, width: int, place: int) -> tuple[int, int, int]:
    """Side, top and left of the largest square."""
    side = min(height, width)
    offset = (place * (max(height, width) - side + 1)) >> 32
    return (side, offset, 0) if height > width else (side, 0, offset)


def _resized(crop: Tensor, size: int, how: Interpolation = "bilinear") -> Tensor:
    """With antialiasing. As a batch of one whose strides say "channels last": torch keeps that layout then,
    instead of turning the picture over twice, at twice the time; the numbers are the same.
    """
    height, width = crop.shape[-2:]
    batch = crop.as_strided((1, 3, height, width), (height * crop.stride(1), *crop.stride()))
    return F.interpolate(batch, size=(size, size), mode=how, antialias=True)[0]


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Each picture of (N, C, H, W) mirrored as its row of `flips` (N, 2) says: left-right, up-down."""
    if images.device.type == "cpu":  # picture by picture, in the processor's cache: forty times as fast
        mirrored = torch.empty_like(images)
        for target, image, (horizontal, vertical) in zip(mirrored, images, flips.tolist(), strict=True):
            target.copy_(image.flip([2] * horizontal + [1] * vertical) if horizontal or vertical else image)
        return mirrored
    horizontal, vertical = (flips[:, axis, None, None, None] for axis in (0, 1))
    images = torch.where(horizontal, images.flip(3), images)
    return torch.where(vertical, images.flip(2), images)


def normalize(
    images: Tensor,
    mean: tuple[float, ...] | Tensor = IMAGENET_MEAN,
    std: tuple[float, ...] | Tensor = IMAGENET_STD,
    out: Tensor | None = None,
) -> Tensor:
    """(images / 255 - mean) / std for uint8 (N, 3, H, W); float32 out, in the same memory format, into `out` if given.

    Fresh memory for a batch of floats costs more than the arithmetic: a loop on the CPU gains from giving `out`.
    """
    mean, std = (torch.as_tensor(v, dtype=torch.float32, device=images.device) for v in (mean, std))
    scale, shift = 1 / (255 * std), mean / std
    out = torch.empty_like(images, dtype=torch.float32) if out is None else out
    rows = [tensor.permute(0, 2, 3, 1) for tensor in (out, images)]
    if images.device.type == "cpu" and all(part.is_contiguous() for part in rows):  # whole rows at once: vectorized
        scale, shift = scale.repeat(images.shape[3]), shift.repeat(images.shape[3])
        for target, image in zip(*(part.flatten(2) for part in rows), strict=True):
            target.copy_(image).mul_(scale).sub_(shift)
        return out
    return out.copy_(images).mul_(scale[:, None, None]).sub_(shift[:, None, None])
