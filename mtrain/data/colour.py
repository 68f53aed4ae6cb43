"""Optional changes of the pictures' looks, on the device, for a whole batch: quarter turns, stain and colour jitter.

The paper uses none of them. Amounts come from `sampling.looks`: numbers in 0..1 of each sample's own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mtrain.config import FitConfig

# optical density of haematoxylin, eosin and diaminobenzidine, a row each, in red, green and blue (Ruifrok and Johnston,
# "Quantification of histochemical staining by color deconvolution", 2001)
STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
DARKEST = 1 / 255  # black has no finite density
GREY = (0.299, 0.587, 0.114)
# luma and the two chroma axes of NTSC: turning the chroma turns the hue and keeps the luma
YIQ = (GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def changed(images: Tensor, looks: Tensor, config: FitConfig) -> Tensor:
    """What the settings ask for, of uint8 (N, 3, S, S); `looks` (N, 16) as sampling.looks draws them."""
    if config.rotations:
        images = quarter_turn(images, looks[:, 0] < 0.5)
    if config.stain_jitter:
        images = stain_jitter(images, looks[:, 1:7], config.stain_jitter)
    if config.colour_jitter:
        images = colour_jitter(images, looks[:, 7:11], config.colour_jitter)
    return images


def quarter_turn(images: Tensor, turned: Tensor) -> Tensor:
    """Transpose each square picture of (N, C, S, S) named by `turned` (N,) bool: with flips, all eight positions."""
    return torch.where(turned[:, None, None, None], images.transpose(2, 3), images)


def stain_jitter(images: Tensor, amounts: Tensor, strength: float) -> Tensor:
    """Each stain's density x U(1 ± strength) + U(± strength); uint8 (N, 3, H, W) in and out.

    `amounts` (N, 6): scale and shift of haematoxylin, eosin and the third. Densities are natural logarithms of the
    light let through (Tellez et al., "Whole-slide mitosis detection in H&E breast histology using PHH3 as a reference
    to train distilled stain-invariant convolutional networks", 2018).
    """
    stains = torch.tensor(STAINS, dtype=torch.float32)
    stains = stains / stains.norm(dim=1, keepdim=True)
    stains, inverse = _sent(stains, images.device), _sent(torch.linalg.inv(stains), images.device)
    spread = (2 * amounts.float() - 1) * strength
    scale, shift = 1 + spread[:, 0::2], spread[:, 1::2]
    mixing = inverse @ (scale[:, :, None] * stains)  # (N, 3, 3): density @ mixing
    light = (images.float() / 255).clamp_min(DARKEST)
    density = torch.einsum("nchw,ncd->ndhw", -light.log(), mixing) + (shift @ stains)[:, :, None, None]
    return _stored(torch.exp(-density.clamp_min(0)), images)


def colour_jitter(images: Tensor, amounts: Tensor, strength: float) -> Tensor:
    """Brightness, contrast and saturation x U(1 ± strength), hue turned by up to strength / 4 of the circle.

    uint8 (N, 3, H, W) in and out; `amounts` (N, 4) in this order. Contrast is about the picture's mean grey.
    """
    spread = (2 * amounts.float() - 1) * strength
    brightness, contrast, saturation = (1 + spread[:, :3]).T
    linear = _chroma(spread[:, 3] / 4 * 2 * math.pi, saturation)  # (N, 3, 3)
    light = torch.einsum("nchw,ndc->ndhw", images.float() / 255, brightness[:, None, None] * linear)
    grey = _sent(torch.tensor(GREY), images.device)
    mean = (torch.einsum("nchw,c->n", light, grey) / light[0, 0].numel())[:, None, None, None]
    return _stored((light - mean) * contrast[:, None, None, None] + mean, images)


def _chroma(angle: Tensor, saturation: Tensor) -> Tensor:
    """(N, 3, 3) that turns the chroma by `angle` and stretches it by `saturation`, both (N,)."""
    axes = torch.tensor(YIQ, dtype=torch.float32)
    cosine, sine, none = saturation * angle.cos(), saturation * angle.sin(), torch.zeros_like(angle)
    turned = torch.stack([none + 1, none, none, none, cosine, -sine, none, sine, cosine], dim=1).reshape(-1, 3, 3)
    linear: Tensor = _sent(torch.linalg.inv(axes), angle.device) @ turned @ _sent(axes, angle.device)
    return linear


def _sent(constant: Tensor, device: torch.device) -> Tensor:
    """From the CPU to the device, which is not waited for."""
    return constant.to(device, non_blocking=True)


def _stored(light: Tensor, like: Tensor) -> Tensor:
    """Light in 0..1 as uint8 in the memory format of `like`."""
    stored = (light.clamp(0, 1) * 255).round_().to(torch.uint8)
    return torch.empty_like(like).copy_(stored)
