"""Where a training goes on from: weights, buffers and momentum in safetensors, the iteration in the header.

A checkpoint is written whole or not at all, and carries a digest: one that was damaged since is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mtrain.atomic import remove_leavings
from mtrain.errors import DivergedError, RunError
from mtrain.model.task_heads import TaskHeads
from mtrain.model.tensor_file import not_finite, read_tensors, write_tensors
from mtrain.model.weights import State

KEPT = 2
PATTERN = "iteration-*.safetensors"
MODEL, AVERAGE = "model.", "average."
HEADS = re.compile(r"(\.heads\.)(weight|bias)$")
# what an optimizer keeps of a parameter: of SGD, and of AdamW
KEPT_OF = {"momentum_buffer": "momentum.", "exp_avg": "first.", "exp_avg_sq": "second.", "step": "steps."}


def save(folder: Path, iteration: int, state: State) -> None:
    """Write the state that a training is in after so many iterations; the older ones but the last few go.

    Raises:
        DivergedError: a number that is not finite.
        RunError: the disk is full. Older checkpoints stay in either case.
    """
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    if broken := not_finite(state):
        raise DivergedError(
            f"after iteration {iteration} {broken[0]} is not finite: the training has diverged",
            where=folder.parent,
            remedy="start another run with a lower --lr or --tau",
        )
    remove_leavings(folder, everything=True)
    write_tensors(folder / f"iteration-{iteration:08d}.safetensors", state, {"iteration": iteration})
    for path in newest(folder)[KEPT:]:
        path.unlink()


def load(path: Path) -> tuple[State, int]:
    """What `save` wrote: the state and the iteration.

    Raises:
        RunError: absent or damaged.
    """
    try:
        state, about = read_tensors(path)
        return state, int(about["iteration"])
    except RunError as error:
        raise RunError(f"not a readable checkpoint: {error.what}", where=path) from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"not a readable checkpoint: {error}", where=path) from None


def newest(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted(folder.glob(PATTERN), reverse=True)


class Kept(Protocol):
    """An optimizer, of which `state` is what it keeps of each parameter."""

    @property
    def state(self) -> MutableMapping[Tensor, dict[str, Tensor]]: ...


def training_state(model: nn.Module, optimizer: Kept, average: State | None = None) -> State:
    """Weights and buffers as 'model.<name>', the moving average as 'average.<name>', momentum as 'momentum.<name>' (of
    AdamW: 'first.', 'second.' and 'steps.'); of the heads, each task's rows under its own name.
    """
    state = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    kept = {AVERAGE + name: tensor for name, tensor in (average or {}).items()}
    for name, parameter in model.named_parameters():
        of = optimizer.state.get(parameter, {})
        kept |= {prefix + name: of[key] for key, prefix in KEPT_OF.items() if of.get(key) is not None}
    for name, tensor in kept.items():
        state |= dict(_by_task(model, name, tensor))
    return state


def restore(model: nn.Module, optimizer: Kept, state: State) -> State:
    """The inverse of `training_state`; the moving average, empty where there is none yet."""
    model.load_state_dict({n.removeprefix(MODEL): tensor for n, tensor in state.items() if n.startswith(MODEL)})
    average = {}
    for name, parameter in model.named_parameters():
        for key, prefix in KEPT_OF.items():
            if (kept := _together(model, prefix + name, state)) is not None:
                optimizer.state[parameter][key] = _laid_out_as(parameter, kept)
        if (mean := _together(model, AVERAGE + name, state)) is not None:
            average[name] = mean
    return average


def _by_task(model: nn.Module, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """'<...>heads.weight' as '<...>heads.<Task>.weight' for each task; any other as it is."""
    heads = getattr(model, "heads", None)
    if not isinstance(heads, TaskHeads) or not HEADS.search(name):
        yield name, tensor
        return
    for task, rows in heads.rows_of(tensor).items():
        yield _of_task(name, task), rows


def _together(model: nn.Module, name: str, state: State) -> Tensor | None:
    """The tensor that `_by_task` took apart; None where the state has nothing of it."""
    heads = getattr(model, "heads", None)
    if not isinstance(heads, TaskHeads) or not HEADS.search(name):
        return state.get(name)
    rows = {task: state[key] for task in heads if (key := _of_task(name, task)) in state}
    return heads.from_rows(rows) if rows else None


def _of_task(name: str, task: str) -> str:
    return HEADS.sub(lambda found: f"{found[1]}{task}.{found[2]}", name)


@torch.no_grad()
def _laid_out_as(parameter: Tensor, values: Tensor) -> Tensor:
    """`values` where the parameter is, in its memory format when they have its shape (a count of steps has not)."""
    like = parameter if values.shape == parameter.shape else values
    return torch.empty_like(like, device=parameter.device, dtype=values.dtype).copy_(values)
