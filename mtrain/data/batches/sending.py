"""Send small tensors that the processor has just made to a device, without waiting for what the device does."""

from __future__ import annotations

import torch
from torch import Tensor


def without_waiting(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`.

    It travels from page-locked memory, which torch reuses only after the copy: from ordinary memory, a copy can wait
    until the device has finished everything before it.
    """
    if tensor.device.type == device.type:  # "cuda" is not equal to "cuda:0"
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
