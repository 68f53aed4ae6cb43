"""Rotary position embeddings, computed once for each grid of patches and not again in every forward pass.

Networks of timm for any image size (DINOv3, EVA-02) compute them on the processor and copy them to the device in each
forward pass. The device waits for that, and a CUDA graph cannot hold it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

AUGMENTATIONS = ("shift_coords", "jitter_coords", "rescale_coords")  # of timm, drawn anew in each training pass


def keep_rotary_embeddings(network: nn.Module) -> None:
    """Have the rotary embeddings of a timm network kept from one forward pass to the next where they cannot change.

    Learned embeddings, and those that are augmented in training, are computed in each pass as before.
    """
    for module in network.modules():
        fixed = not any(True for _ in module.parameters())
        plain = all(getattr(module, name, None) is None for name in AUGMENTATIONS)
        if callable(getattr(module, "get_embed", None)) and fixed and plain:
            module.__dict__["get_embed"] = KeptEmbedding(module)


class KeptEmbedding:
    """The method `get_embed` of a module, which returns the same tensor for the same arguments on the same device."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.made_for: tuple[Any, ...] | None = None
        self.kept: Tensor | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The embedding for a grid (H, W) of patches: (H * W, 2 * dim), sine and cosine."""
        buffers = list(self.module.buffers())
        device, dtype = (buffers[0].device, buffers[0].dtype) if buffers else (None, None)
        if any(type(buffer) is not Tensor for buffer in buffers):  # without values, to estimate memory
            return self._made(args, kwargs)
        wanted = (repr((args, sorted(kwargs.items()))), device, dtype)
        if self.kept is None or wanted != self.made_for:
            with torch.inference_mode(False), torch.no_grad():  # training may read what a validation has made
                self.kept, self.made_for = self._made(args, kwargs), wanted
        return self.kept

    def _made(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kind: Any = type(self.module)
        return kind.get_embed(self.module, *args, **kwargs)
