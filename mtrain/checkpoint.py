"""Where a training goes on from: weights, buffers and momentum in safetensors, the iteration in the header.

A checkpoint is written whole or not at all, and carries a digest of its tensors: one that was damaged since is told.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mtrain.errors import DivergedError, RunError
from mtrain.weights import State, about_in, state_digest, write_tensors

KEPT = 2
PATTERN = "iteration-*.safetensors"
MODEL, MOMENTUM = "model.", "momentum."


def save(folder: Path, iteration: int, state: State) -> None:
    """Write the state that a training is in after so many iterations; the older ones but the last few go.

    Raises:
        DivergedError: a number that is not finite.
        RunError: the disk is full. Older checkpoints stay in either case.
    """
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    broken = sorted(name for name, tensor in state.items() if not torch.isfinite(tensor).all())
    if broken:
        raise DivergedError(
            f"after iteration {iteration} {broken[0]} is not finite: the training has diverged",
            where=folder.parent,
            remedy="start another run with a lower --lr or --tau",
        )
    about = {"iteration": iteration, "digest": state_digest(state)}
    write_tensors(folder / f"iteration-{iteration:08d}.safetensors", state, about)
    for path in newest(folder)[KEPT:]:
        path.unlink()


def load(path: Path) -> tuple[State, int]:
    """What `save` wrote: the state and the iteration.

    Raises:
        RunError: absent or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = about_in(file)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about["digest"] != state_digest(state):
            raise ValueError("changed since it was written")
        return state, int(about["iteration"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"not a readable checkpoint: {error}", where=path) from None


def newest(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted(folder.glob(PATTERN), reverse=True)


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Weights and buffers as 'model.<name>', momentum as 'momentum.<name>'."""
    state = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            state[MOMENTUM + name] = momentum
    return state


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """The inverse of `training_state`."""
    model.load_state_dict({n.removeprefix(MODEL): tensor for n, tensor in state.items() if n.startswith(MODEL)})
    for name, parameter in model.named_parameters():
        if MOMENTUM + name in state:
            optimizer.state[parameter]["momentum_buffer"] = _laid_out_as(parameter, state[MOMENTUM + name])


@torch.no_grad()
def _laid_out_as(parameter: Tensor, values: Tensor) -> Tensor:
    return torch.empty_like(parameter).copy_(values)
