"""The tokens that a vision transformer ends in -> one vector an image."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrain.backbones.card import Features


def pooled(tokens: Tensor, features: Features, prefix: int) -> Tensor:
    """Normalized tokens (N, prefix + patches, width) -> (N, width), or (N, 2 x width) for `cls+mean`.

    prefix: tokens that stand before the patches, the class token first.
    """
    means = tokens[:, prefix:].mean(1)
    if features == "mean":
        return means
    return tokens[:, 0] if features == "cls" else torch.cat([tokens[:, 0], means], dim=1)
