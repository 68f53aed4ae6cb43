"""Pixels to network input: square crop and resize of one picture (uint8, in the worker), then flips and normalization
of a whole batch on its device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CENTRE = 1 << 31


def square(image: Tensor, size: int, place: int = CENTRE) -> Tensor:
    """The largest square of `image` (3, h, w) at `place`, resized to (3, size, size); uint8 in and out.

    `place` is where the square lies along the longer side, in units of 2^-32 of the free pixels.
    """
    crop = _crop(image, place)
    return crop if crop.shape[-1] == size else _resized(crop, size)


def square_into(target: Tensor, image: Tensor, place: int = CENTRE) -> None:
    """Put `square(image, size, place)` into `target` (3, size, size)."""
    target.copy_(square(image, target.shape[-1], place))


def _crop(image: Tensor, place: int) -> Tensor:
    height, width = image.shape[-2:]
    side = min(height, width)
    offset = (place * (max(height, width) - side + 1)) >> 32
    top, left = (offset, 0) if height > width else (0, offset)
    return image[:, top : top + side, left : left + side]


def _resized(crop: Tensor, size: int) -> Tensor:
    """Bilinear with antialiasing. As a batch of one whose strides say "channels last": torch keeps that layout then,
    instead of turning the picture over twice, at twice the time; the numbers are the same.
    """
    height, width = crop.shape[-2:]
    batch = crop.as_strided((1, 3, height, width), (height * crop.stride(1), *crop.stride()))
    return F.interpolate(batch, size=(size, size), mode="bilinear", antialias=True)[0]


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
