"""Convert pixels to network input: workers crop a square from each image; the device resizes, flips and normalizes
whole batches of squares.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mtrain.backbones.card import Interpolation
from mtrain.data.batches.sending import without_waiting

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Whole = TypeVar("Whole", np.uint8, np.int32)
CENTRE = 1 << 31
LARGEST = 2  # multiple of the size; workers shrink larger squares, to keep batches small


def square(image: Tensor, size: int, place: int = CENTRE, how: Interpolation = "bilinear") -> Tensor:
    """The largest square of `image` (3, h, w) at `place`, resized to (3, size, size); uint8 in and out.

    `place` is the position of the square along the longer side, in units of 2^-32 of the free pixels.
    """
    crop = _crop(image, place)
    return crop if crop.shape[-1] == size else _resized(crop, size, how)


def room_for_squares(images: int, size: int) -> int:
    """Maximum number of bytes that the squares of this many images take."""
    return images * 3 * (LARGEST * size) ** 2


def put_square(
    pixels: npt.NDArray[np.uint8], size: int, place: int, room: npt.NDArray[np.uint8], how: Interpolation = "bilinear"
) -> int:
    """Write the largest square of `pixels` (h, w, 3) at `place` to the start of `room` (bytes,). Returns its side.

    The square is resized only if it is larger than `LARGEST` times `size`. This uses arrays, because tensors would
    cost as much again as the copy.
    """
    side, top, left = place_of(pixels.shape[0], pixels.shape[1], place)
    crop = pixels[top : top + side, left : left + side]
    if side > LARGEST * size:
        crop = _resized(torch.from_numpy(crop).permute(2, 0, 1), size, how).permute(1, 2, 0).numpy()
        side = size
    room[: 3 * side * side].reshape(side, side, 3)[...] = crop
    return side


def put_mask(mask: npt.NDArray[Whole], place: int, room: npt.NDArray[Whole]) -> None:
    """Write the largest square of `mask` (h, w) at `place` to `room` (size, size): each pixel takes the value of the
    stored pixel that holds its centre.
    """
    side, top, left = place_of(mask.shape[0], mask.shape[1], place)
    size = len(room)
    nearest = (2 * np.arange(size) + 1) * side // (2 * size)
    room[...] = mask[(top + nearest)[:, None], left + nearest]


def square_points(
    points: npt.NDArray[np.float64], shape: tuple[int, int], size: int, place: int
) -> tuple[npt.NDArray[np.float64], float]:
    """The points (n, 3), x, y and class, that lie in the largest square of an image of `shape` (h, w) at `place`, in
    pixels of that square resized to `size`; and the factor that resizes it.
    """
    side, top, left = place_of(*shape, place)
    scale = size / side
    moved = points - (left, top, 0)
    inside = ((moved[:, :2] >= 0) & (moved[:, :2] < side)).all(axis=1)
    return moved[inside] * (scale, scale, 1), scale


def resized(
    pixels: Tensor, sides: Tensor, size: int, flips: Tensor | None = None, how: Interpolation = "bilinear"
) -> Tensor:
    """Resize squares of different sizes to one size, and mirror each as its row of `flips` (N, 2) states: left-right,
    up-down.

    pixels: (bytes,), the squares one after the other. sides: (N,), on the CPU. Returns uint8 (N, 3, size, size),
    channels last, on the device of `pixels`. On the CPU the pixels equal those of `square`; other devices round once,
    after both directions, and differ by at most one level.
    """
    if pixels.device.type == "cpu":
        return _resized_one_by_one(pixels, sides, size, flips, how)
    images = resized_at_once(pixels, without_waiting(sides, pixels.device), size, int(sides.max()), how)
    return images if flips is None else flip(images, flips)


def resized_if_needed(pixels: Tensor, sides: Tensor, size: int, how: Interpolation = "bilinear") -> Tensor:
    """As `resized`; squares that all have the right size already stay where they are, in the memory of `pixels`."""
    if pixels.device.type == "cpu" or bool((sides != size).any()):
        return resized(pixels, sides, size, how=how)
    return pixels[: 3 * size * size * len(sides)].view(-1, size, size, 3).permute(0, 3, 1, 2)


def _resized_one_by_one(pixels: Tensor, sides: Tensor, size: int, flips: Tensor | None, how: Interpolation) -> Tensor:
    """Image by image, so that each stays in the processor's cache."""
    images = _room(len(sides), size, pixels.device)
    changes = itertools.repeat((False, False)) if flips is None else flips.tolist()
    squares = _squares(pixels, [(1, side) for side in sides.tolist()])
    for target, (image,), (horizontal, vertical) in zip(images, squares, changes, strict=False):
        image = image if image.shape[-1] == size else _resized(image, size, how)
        target.copy_(image.flip([2] * horizontal + [1] * vertical) if horizontal or vertical else image)
    return images


def resized_at_once(
    pixels: Tensor,
    sides: Tensor,
    size: int,
    largest: int,
    how: Interpolation = "bilinear",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """As `resized`, by two batched products with the interpolation weights: the number of kernel launches does not
    depend on the sides. sides: (N,), on the device of `pixels`.

    Squares are padded to `largest`, which no side exceeds; the padding has weight 0.

    dtype: that of the factors for bilinear interpolation, by default float16 on CUDA, which multiplies it many times as
    fast as float32. Levels up to 255 are exact in it, weights are rounded by at most 1/2048 of themselves, and products
    are summed in float32, so that the result differs from that of exact factors by less than a quarter of a level
    before it is rounded. Bicubic interpolation also rounds between its directions, so it needs float32.
    """
    dtype = dtype or (torch.float16 if pixels.device.type == "cuda" else torch.float32)
    squares = _padded(pixels, sides, largest)
    if how == "bicubic":
        return _cubic_at_once(squares.float(), _cubic_weights(sides, size, largest))
    squares, weights = squares.to(dtype), _triangle_weights(sides, size, largest).to(dtype)
    with _summed_in_float32():
        rows = (weights @ squares.flatten(2)).view(-1, size, largest, 3)
        rows = rows.transpose(2, 3).reshape(-1, size * 3, largest)
        columns = (rows @ weights.transpose(1, 2)).view(-1, size, 3, size)
    images = _room(len(sides), size, pixels.device)
    return images.copy_(columns.round_().transpose(1, 2))


@contextmanager
def _summed_in_float32() -> Iterator[None]:
    """Products of float16 on CUDA with sums in float32 throughout, whatever the process allows."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_fp16_reduced_precision_reduction = matmul.allow_fp16_reduced_precision_reduction, False
    try:
        yield
    finally:
        matmul.allow_fp16_reduced_precision_reduction = before


def _cubic_at_once(squares: Tensor, weights: Tensor) -> Tensor:
    """Resize the width first, round and clip to 0 to 255, then the height, as Pillow and torch do.

    The order matters, because values are clipped in between.
    """
    count, size, largest = weights.shape
    wide = (weights @ squares.transpose(1, 2).flatten(2)).round_().clamp_(0, 255)  # (N, x, y * 3)
    wide = wide.view(count, size, largest, 3).transpose(1, 2).reshape(count, largest, size * 3)
    images = (weights @ wide).round_().clamp_(0, 255).view(count, size, size, 3)
    return _room(count, size, squares.device).copy_(images.permute(0, 3, 1, 2))


def _padded(pixels: Tensor, sides: Tensor, largest: int) -> Tensor:
    """(N, largest, largest, 3): the squares, which lie one after the other. The padding holds arbitrary values."""
    triples = pixels[: len(pixels) // 3 * 3].view(-1, 3)
    small = len(triples) + largest**2 < 2**31  # the places of all squares, also beyond the last one
    sides = sides.to(torch.int32 if small else torch.int64)[:, None, None]
    areas = sides * sides
    first = areas.cumsum(0, dtype=areas.dtype) - areas
    line = torch.arange(largest, dtype=areas.dtype, device=pixels.device)
    places = (first + line[:, None] * sides + line).clamp_(max=len(triples) - 1)
    return triples.index_select(0, places.flatten()).view(*places.shape, 3)


def _triangle_weights(sides: Tensor, size: int, largest: int) -> Tensor:
    """(N, size, largest): the weight of each pixel of a row in each pixel of the resized row, bilinear, antialiased.

    The weights form a triangle of one pixel to either side, or of side / size pixels where the square shrinks. Rows sum
    to 1.
    """
    scales = (sides.float() / size)[:, None, None]
    centres = scales * (torch.arange(size, device=sides.device)[:, None] + 0.5)
    pixels = torch.arange(largest, device=sides.device)
    weights = (1 - (pixels + 0.5 - centres).abs() / scales.clamp(min=1)).clamp_(min=0)
    weights = weights.masked_fill_(pixels >= sides[:, None, None], 0)
    return weights / weights.sum(2, keepdim=True)


def _cubic_weights(sides: Tensor, size: int, largest: int) -> Tensor:
    """Return weights like `_triangle_weights`, but of antialiased cubic convolution over two pixels to either side.

    a = -0.5, as in Pillow and torch (Keys, "Cubic convolution interpolation for digital image processing", 1981).
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
    """The squares of each run (images, side): (images, 3, side, side)."""
    start = 0
    for images, side in runs:
        end = start + images * 3 * side * side
        yield pixels[start:end].view(images, side, side, 3).permute(0, 3, 1, 2)
        start = end


def _room(images: int, size: int, device: torch.device) -> Tensor:
    return torch.empty((images, 3, size, size), dtype=torch.uint8, device=device, memory_format=torch.channels_last)


def _crop(image: Tensor, place: int) -> Tensor:
    side, top, left = place_of(image.shape[-2], image.shape[-1], place)
    return image[:, top : top + side, left : left + side]


def place_of(height: int, width: int, place: int) -> tuple[int, int, int]:
    """Side, top and left of the largest square of an image, at `place` (units of 2^-32)."""
    side = min(height, width)
    offset = (place * (max(height, width) - side + 1)) >> 32
    return (side, offset, 0) if height > width else (side, 0, offset)


def _resized(crop: Tensor, size: int, how: Interpolation = "bilinear") -> Tensor:
    """Resize bilinearly with antialiasing. The image is passed as a batch of one whose strides are those of "channels
    last": torch then keeps that layout instead of converting it twice, which takes twice the time for the same result.
    """
    height, width = crop.shape[-2:]
    batch = crop.as_strided((1, 3, height, width), (height * crop.stride(1), *crop.stride()))
    return F.interpolate(batch, size=(size, size), mode=how, antialias=True)[0]


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror each image of (N, C, H, W) as its row of `flips` (N, 2) states: left-right, up-down."""
    if images.device.type == "cpu":  # image by image, in the processor's cache: forty times as fast
        mirrored = torch.empty_like(images)
        for target, image, (horizontal, vertical) in zip(mirrored, images, flips.tolist(), strict=True):
            target.copy_(image.flip([2] * horizontal + [1] * vertical) if horizontal or vertical else image)
        return mirrored
    return mirrored_at_once(images, flips)


def mirrored_at_once(images: Tensor, flips: Tensor) -> Tensor:
    """As `flip`, by operations on the whole batch, whatever the flips are."""
    horizontal, vertical = (flips[:, axis, None, None, None] for axis in (0, 1))
    images = torch.where(horizontal, images.flip(3), images)
    return torch.where(vertical, images.flip(2), images)


def normalize(
    images: Tensor,
    mean: tuple[float, ...] | Tensor = IMAGENET_MEAN,
    std: tuple[float, ...] | Tensor = IMAGENET_STD,
    out: Tensor | None = None,
) -> Tensor:
    """(images / 255 - mean) / std for uint8 (N, 3, H, W): float32 in the same memory format, written to `out` if given.

    Allocating a batch of floats costs more than the arithmetic, so a loop on the CPU should pass `out`.
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
    scale, shift = scale[:, None, None], shift[:, None, None]
    if images.device.type == "cpu":
        return out.copy_(images).mul_(scale).sub_(shift)
    return torch.addcmul(-shift, images, scale, out=out)  # in one pass
