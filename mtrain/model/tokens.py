"""Pool the output tokens of a vision transformer into one vector per image."""

from __future__ import annotations

import torch
from torch import Tensor

from mtrain.backbones.card import Features


def pooled(tokens: Tensor, features: Features, prefix: int) -> Tensor:
    """Pool normalized tokens (N, prefix + patches, width) to (N, width), or to (N, 2 x width) for `cls+mean`.

    prefix: number of tokens before the patch tokens; the class token is the first of them.
    """
    means = tokens[:, prefix:].mean(1)
    if features == "mean":
        return means
    return tokens[:, 0] if features == "cls" else torch.cat([tokens[:, 0], means], dim=1)
