"""A fixed random projection of gradients to few dimensions that preserves inner products on average.

The matrix is sparse: each parameter contributes to `ENTRIES` of the dimensions, with random signs (Kane and Nelson,
"Sparser Johnson-Lindenstrauss transforms", J. ACM 61(1), 2014), so that a network of millions of weights needs no dense
matrix. It depends only on the seed and the two sizes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ENTRIES = 4


class Projection:
    """Projects (n, parameters) to (n, dimensions). Inner products are the same in expectation."""

    def __init__(self, parameters: int, dimensions: int, seed: int, device: torch.device) -> None:
        rng = np.random.Generator(np.random.Philox(seed))
        shape = (ENTRIES, parameters)
        self.parameters, self.dimensions = parameters, dimensions
        self.places = torch.from_numpy(rng.integers(dimensions, size=shape, dtype=np.int32)).to(device)
        signs = (rng.integers(2, size=shape, dtype=np.int8) * 2 - 1).astype(np.float32) / np.float32(ENTRIES**0.5)
        self.signs = torch.from_numpy(signs).to(device)

    def __call__(self, gradients: Tensor) -> Tensor:
        """Project gradients (n, parameters) to (n, dimensions), float32."""
        columns = gradients.float().T
        found = torch.zeros(self.dimensions, columns.shape[1], device=columns.device)
        for places, signs in zip(self.places, self.signs, strict=True):
            found.index_add_(0, places, columns * signs[:, None])
        return found.T
