"""Optional augmentation of whole batches on the device: quarter turns, stain jitter and colour jitter.

The paper uses none of them. The amounts come from `sampling.looks`, which draws numbers in 0..1 for each sample.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from mtrain.config import FitConfig
from mtrain.data.batches.sending import without_waiting

# optical density of haematoxylin, eosin and diaminobenzidine, a row each, in red, green and blue (Ruifrok and Johnston,
# "Quantification of histochemical staining by color deconvolution", 2001)
STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
DARKEST = 1 / 255  # black has no finite density
GREY = (0.299, 0.587, 0.114)
# luma and the two chroma axes of NTSC: rotating the chroma rotates the hue and keeps the luma
YIQ = (GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def changed(images: Tensor, looks: Tensor, config: FitConfig) -> Tensor:
    """Apply the configured augmentation to uint8 (N, 3, S, S). looks: (N, 16), from `sampling.looks`."""
    if config.rotations:
        images = quarter_turn(images, looks[:, 0] < 0.5)
    if config.stain_jitter:
        images = stain_jitter(images, looks[:, 1:7], config.stain_jitter)
    if config.colour_jitter:
        images = colour_jitter(images, looks[:, 7:11], config.colour_jitter)
    return images


def quarter_turn(images: Tensor, turned: Tensor) -> Tensor:
    """Transpose the images of (N, C, S, S) where `turned` (N,) is true: with flips, all eight orientations occur."""
    return torch.where(turned[:, None, None, None], images.transpose(2, 3), images)


def stain_jitter(images: Tensor, amounts: Tensor, strength: float) -> Tensor:
    """Change the density of each stain to density x U(1 ± strength) + U(± strength); uint8 (N, 3, H, W) in and out.

    amounts: (N, 6), scale and shift of haematoxylin, eosin and the third. Densities are natural logarithms of the
    transmitted light (Tellez et al., "Whole-slide mitosis detection in H&E breast histology using PHH3 as a reference
    to train distilled stain-invariant convolutional networks", 2018).
    """
    stains, inverse = _stains(images.device)
    spread = (2 * amounts.float() - 1) * strength
    scale, shift = 1 + spread[:, 0::2], spread[:, 1::2]
    mixing = inverse @ (scale[:, :, None] * stains)  # (N, 3, 3): density @ mixing
    light = (images.float() / 255).clamp_min(DARKEST)
    density = torch.einsum("nchw,ncd->ndhw", -light.log(), mixing) + (shift @ stains)[:, :, None, None]
    return _stored(torch.exp(-density.clamp_min(0)), images)


def colour_jitter(images: Tensor, amounts: Tensor, strength: float) -> Tensor:
    """Multiply brightness, contrast and saturation by U(1 ± strength); rotate hue by up to strength / 4 of a turn.

    uint8 (N, 3, H, W) in and out. amounts: (N, 4), in this order. Contrast is relative to the mean grey of the image.
    """
    spread = (2 * amounts.float() - 1) * strength
    brightness, contrast, saturation = (1 + spread[:, :3]).T
    linear = _chroma(spread[:, 3] / 4 * 2 * math.pi, saturation)  # (N, 3, 3)
    light = torch.einsum("nchw,ndc->ndhw", images.float() / 255, brightness[:, None, None] * linear)
    grey = _grey(images.device)
    mean = (torch.einsum("nchw,c->n", light, grey) / light[0, 0].numel())[:, None, None, None]
    return _stored((light - mean) * contrast[:, None, None, None] + mean, images)


def _chroma(angle: Tensor, saturation: Tensor) -> Tensor:
    """(N, 3, 3): matrices that rotate the chroma by `angle` and scale it by `saturation`, both (N,)."""
    axes, inverse = _axes(angle.device)
    cosine, sine, none = saturation * angle.cos(), saturation * angle.sin(), torch.zeros_like(angle)
    turned = torch.stack([none + 1, none, none, none, cosine, -sine, none, sine, cosine], dim=1).reshape(-1, 3, 3)
    linear: Tensor = inverse @ turned @ axes
    return linear


# constants, computed on the CPU and sent once to each device, without waiting for it


@cache
def _stains(device: torch.device) -> tuple[Tensor, Tensor]:
    stains = torch.tensor(STAINS, dtype=torch.float32)
    return _with_inverse(stains / stains.norm(dim=1, keepdim=True), device)


@cache
def _axes(device: torch.device) -> tuple[Tensor, Tensor]:
    return _with_inverse(torch.tensor(YIQ, dtype=torch.float32), device)


@cache
def _grey(device: torch.device) -> Tensor:
    return without_waiting(torch.tensor(GREY), device)


def _with_inverse(matrix: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    return without_waiting(matrix, device), without_waiting(torch.linalg.inv(matrix), device)


def _stored(light: Tensor, like: Tensor) -> Tensor:
    """Light in 0..1 as uint8 in the memory format of `like`."""
    stored = (light.clamp(0, 1) * 255).round_().to(torch.uint8)
    return torch.empty_like(like).copy_(stored)
