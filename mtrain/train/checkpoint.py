"""Checkpoints, from which a training resumes: weights, buffers and momentum in a safetensors file.

A checkpoint is written atomically and carries a digest, so that a damaged one is detected when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mtrain.disk.atomic import remove_leavings
from mtrain.errors import DivergedError, RunError
from mtrain.model.task_heads import TaskHeads
from mtrain.model.weight_files.tensor_file import not_finite, read_tensors, write_tensors
from mtrain.model.weight_files.weights import StateDict
from mtrain.runs.belonging import SETTINGS

KEPT = 2
PATTERN = "iteration-*.safetensors"
MODEL, AVERAGE = "model.", "average."
HEADS = re.compile(r"(\.heads\.)(weight|bias)$")
# key in the state of torch's SGD or AdamW -> prefix in a checkpoint
PREFIXES = {"momentum_buffer": "momentum.", "exp_avg": "first.", "exp_avg_sq": "second.", "step": "steps."}


def save(folder: Path, iteration: int, state: StateDict, settings: str | None = None) -> None:
    """Write a training's state after this many iterations, and remove all checkpoints but the newest few.

    settings: a digest of what determines the training, by which `load` recognizes its checkpoints.

    Raises:
        DivergedError: a value is not finite.
        RunError: the disk is full. In either case the older checkpoints stay.
    """
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    if broken := not_finite(state):
        raise DivergedError(
            f"after iteration {iteration} {broken[0]} is not finite: the training has diverged",
            where=folder.parent,
            remedy="start another run with a lower --lr or --tau",
        )
    remove_leavings(folder, everything=True)
    about = {"iteration": iteration} | ({SETTINGS: settings} if settings else {})
    write_tensors(folder / f"iteration-{iteration:08d}.safetensors", state, about)
    for path in newest(folder)[KEPT:]:
        path.unlink()


def owner(folder: Path) -> str:
    """What stands for the settings of a training whose folder is named by a digest of them."""
    return f"{folder.parent.name}/{folder.name}"


def load(path: Path, settings: str | None = None) -> tuple[StateDict, int]:
    """The state and the iteration that `save` wrote.

    Raises:
        RunError: the file is absent or damaged, or states other settings than these.
    """
    try:
        state, about = read_tensors(path)
        if settings and about.get(SETTINGS, settings) != settings:
            raise RunError("it belongs to another training run", where=path)
        return state, int(about["iteration"])
    except RunError as error:
        raise RunError(f"not a readable checkpoint: {error.what}", where=path) from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"not a readable checkpoint: {error}", where=path) from None


def newest(folder: Path) -> list[Path]:
    """Paths of the checkpoints, newest first."""
    return sorted(folder.glob(PATTERN), reverse=True)


def iteration_of(path: Path) -> int:
    """The iteration that the name of a checkpoint states."""
    return int(path.stem.rpartition("-")[2])


def newest_readable(
    folder: Path, note: Callable[[str], object], settings: str | None = None
) -> tuple[StateDict, int] | None:
    """The content of the newest checkpoint that can be read, and its number of iterations; None if there is none.

    settings: as in `load`. Each checkpoint that cannot be used is reported.
    """
    paths = newest(folder)
    for number, path in enumerate(paths, start=1):
        try:
            return load(path, settings)
        except RunError as error:
            is_last = number == len(paths)
            fallback = "no other exists: training starts from the beginning" if is_last else "the previous one is used"
            note(f"{error}; {fallback}")
    return None


def hand_on(path: Path, folder: Path) -> None:
    """Copy a checkpoint to the folder of another training, which begins with the same iterations.

    Raises:
        RunError: it is absent or damaged, or the copy cannot be written.
    """
    state, iteration = load(path)
    write_tensors(folder / path.name, state, {"iteration": iteration})


class Kept(Protocol):
    """An optimizer, whose `state` maps each parameter to what is kept for it from step to step."""

    @property
    def state(self) -> MutableMapping[Tensor, dict[str, Tensor]]: ...


def training_state(model: nn.Module, optimizer: Kept, average: StateDict | None = None) -> StateDict:
    """The tensors of a checkpoint by name: weights and buffers as 'model.<name>', the moving average as
    'average.<name>', momentum as 'momentum.<name>' (for AdamW: 'first.', 'second.' and 'steps.'). The rows of each head
    are stored under the name of its task, so that they do not depend on the order of tasks.
    """
    state = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    kept = {AVERAGE + name: tensor for name, tensor in (average or {}).items()}
    for name, parameter in model.named_parameters():
        own = optimizer.state.get(parameter, {})
        kept |= {prefix + name: own[key] for key, prefix in PREFIXES.items() if own.get(key) is not None}
    for name, tensor in kept.items():
        state |= dict(_split_by_task(model, name, tensor))
    return state


def restore(model: nn.Module, optimizer: Kept, state: StateDict) -> StateDict:
    """The inverse of `training_state`. Returns the moving average, empty if the checkpoint has none."""
    model.load_state_dict({n.removeprefix(MODEL): tensor for n, tensor in state.items() if n.startswith(MODEL)})
    average = {}
    for name, parameter in model.named_parameters():
        for key, prefix in PREFIXES.items():
            if (kept := _join_tasks(model, prefix + name, state)) is not None:
                optimizer.state[parameter][key] = _laid_out_as(parameter, kept)
        if (mean := _join_tasks(model, AVERAGE + name, state)) is not None:
            average[name] = mean
    return average


def _split_by_task(model: nn.Module, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """'<...>heads.weight' as '<...>heads.<Task>.weight' for each task; any other tensor unchanged."""
    heads = _heads_of(model, name)
    if heads is None:
        yield name, tensor
        return
    for task, rows in heads.rows_of(tensor).items():
        yield _task_key(name, task), rows


def _join_tasks(model: nn.Module, name: str, state: StateDict) -> Tensor | None:
    """The inverse of `_split_by_task`; None if the state holds no part of this tensor."""
    heads = _heads_of(model, name)
    if heads is None:
        return state.get(name)
    rows = {task: state[key] for task in heads if (key := _task_key(name, task)) in state}
    return heads.from_rows(rows) if rows else None


def _heads_of(model: nn.Module, name: str) -> TaskHeads | None:
    """The heads whose rows the tensor '<prefix>.<...>heads.weight' holds; None where it is of another module."""
    if not HEADS.search(name):
        return None
    heads = model.get_submodule(name.partition(".")[2].rpartition(".")[0])
    return heads if isinstance(heads, TaskHeads) else None


def _task_key(name: str, task: str) -> str:
    return HEADS.sub(lambda match: f"{match[1]}{task}.{match[2]}", name)


@torch.no_grad()
def _laid_out_as(parameter: Tensor, values: Tensor) -> Tensor:
    """`values` on the parameter's device, in its memory format if the shapes are equal (a step count is a scalar)."""
    like = parameter if values.shape == parameter.shape else values
    return torch.empty_like(like, device=parameter.device, dtype=values.dtype).copy_(values)
