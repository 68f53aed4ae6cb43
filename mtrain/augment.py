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
    height, width = image.shape[-2:]
    side = min(height, width)
    offset = (place * (max(height, width) - side + 1)) >> 32
    top, left = (offset, 0) if height > width else (0, offset)
    crop = image[:, top : top + side, left : left + side]
    if side == size:
        return crop
    return F.interpolate(crop[None], size=(size, size), mode="bilinear", antialias=True)[0]


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Each picture of (N, C, H, W) mirrored as its row of `flips` (N, 2) says: left-right, up-down."""
    horizontal, vertical = (flips[:, axis, None, None, None] for axis in (0, 1))
    images = torch.where(horizontal, images.flip(3), images)
    return torch.where(vertical, images.flip(2), images)


def normalize(
    images: Tensor, mean: tuple[float, ...] | Tensor = IMAGENET_MEAN, std: tuple[float, ...] | Tensor = IMAGENET_STD
) -> Tensor:
    """(images / 255 - mean) / std for uint8 (N, 3, H, W); float32 out, in the same memory format."""
    mean, std = (torch.as_tensor(v, dtype=torch.float32, device=images.device)[:, None, None] for v in (mean, std))
    return images.float().mul_(1 / (255 * std)).sub_(mean / std)
