"""Tensors of one block that a checkpoint keeps under separate names, one for each task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def load_rows(rows: Mapping[str, Tensor], state: Mapping[str, Any], missing: list[str], errors: list[str]) -> None:
    """Copy the tensors of these names from a state to `rows`, views of the block, as `load_state_dict` would.

    Names that the state does not have go to `missing`, those of another shape to `errors`.
    """
    for name, row in rows.items():
        if name not in state:
            missing.append(name)
        elif state[name].shape != row.shape:
            errors.append(f"size mismatch for {name}: {tuple(state[name].shape)}, not {tuple(row.shape)}")
        else:
            row.copy_(state[name])
