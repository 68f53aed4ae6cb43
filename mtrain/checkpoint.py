"""Training state on disk: tensors in safetensors, everything else as JSON in its header; written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mtrain.errors import RunError

KEPT = 2
PATTERN = "iteration-*.safetensors"


def save(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors and a JSON header under `path`, atomically.

    Raises:
        RunError: the disk is full, or the like.
    """
    part = path.with_name(path.name + ".part")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(contiguous, part, {"about": json.dumps(about, sort_keys=True)})
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise RunError(f"cannot be written: {error}", where=path, remedy="make room and run the command again") from None


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save` wrote.

    Raises:
        RunError: absent or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"not a readable checkpoint: {error}", where=path) from None


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and buffers as 'model.<name>', momentum as 'momentum.<name>'."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    return tensors


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `training_state`."""
    state = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    model.load_state_dict(state)
    for name, parameter in model.named_parameters():
        if f"momentum.{name}" in tensors:
            momentum = tensors[f"momentum.{name}"].to(parameter.device)
            optimizer.state[parameter]["momentum_buffer"] = momentum.to(
                memory_format=torch.channels_last if momentum.ndim == 4 and _channels_last(parameter) else torch.preserve_format
            )


def newest(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted(folder.glob(PATTERN), reverse=True)


def prune(folder: Path) -> None:
    """Keep the newest few."""
    for path in newest(folder)[KEPT:]:
        path.unlink()


def path_of(folder: Path, iteration: int) -> Path:
    return folder / f"iteration-{iteration:08d}.safetensors"


def _channels_last(parameter: Tensor) -> bool:
    return parameter.is_contiguous(memory_format=torch.channels_last) and not parameter.is_contiguous()
