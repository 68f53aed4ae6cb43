"""Match the tensors of a file to those of a network, and refuse a file in which any are missing or left over.

A file may store the network under a prefix (`module.`, `teacher.backbone.`, ...), contain several networks, and
contain parts that do not belong to the network: heads, extra modules of a pre-training method, the state of an
optimizer. Such parts are dropped by name (`DROPPED`), but only beside the network or at its root, never inside it: a
squeeze-and-excitation block has an `fc` too. If any other tensor is left over, the file belongs to another network.
Averages of the weights are never dropped without a choice, wherever a training keeps them (`AVERAGED`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtrain.errors import RunError, UsageError

StateDict = dict[str, Tensor]
Candidates = Iterable[tuple[str, Mapping[str, Tensor]]]
REAL = ("float16", "bfloat16", "float32", "float64")  # what weights are stored as
ROOT = "."  # how --weights-key names the top level

HEADS = (
    r"heads?",
    r"head_\w+",
    r"\w+_head_?\d?",
    r"fc",
    r"classifiers?",
    r"linear",
    r"last_linear",
    r"logits",
    r"(Aux|aux_?)(\d|Logits|logits|head|classifier)*",
)
# parts of contrastive learning, self-distillation and masked autoencoders
PRETEXT = (
    r"proj(ector|ection)?(_\w+)?",
    r"predict(or|ion)(_\w+)?",
    r"prototypes\w*",
    r"queue\w*",
    r"\w+_queue\w*",
    r"center",
    r"decoder\w*",
    r"mask_token",
    r"temperature",
    r"logit_scale",
)
TRAINING = (
    r"\w*optim\w*",
    r"\w*sched(uler)?\w*",
    r"\w*scaler\w*",
    r"amp",
    r"criterion",
    r"\w*loss\w*",
    r"\w*metrics?\w*",
    r"(train|val|test)_(acc|auroc|f1|auc)\w*",
    r"n_averaged",
    r"\w*rng\w*",
    r"callbacks",
    r"loops",
    r"args",
    r"hyper_parameters",
    r"momentum",
    r"first",
    r"second",
    r"steps",
)
DROPPED = re.compile("|".join((*HEADS, *PRETEXT, *TRAINING)))
OF_A_TRAINING = re.compile("|".join(TRAINING))
# averages of the weights, which many programs keep in a callback or an optimizer and score in place of the weights
AVERAGED = re.compile(r"(.*_)?ema(_.*)?|.*EMA.*|.*(Ema|[aA]verag).*|(.*_)?(swa|SWA|shadow)(_.*)?|callbacks")
# constants that a network computes itself, and buffers that FLOP counters leave behind
DERIVED = re.compile(
    r"(.*\.)?(num_batches_tracked|relative_position_index|relative_coords_table|attn_mask|position_ids|total_ops|total_params)"
)
# torchvision's older DenseNet files write "norm.1" for the module "norm1"
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def fit_names(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    path: Path,
    name: str,
    key: str | None = None,
    others: Candidates = (),
) -> StateDict:
    """Return the tensors of `found` that the network `name` needs, under its own names.

    wanted: the names and shapes that the network needs. key: the part of the file to use if it contains several
    networks. others: networks, by name, to compare a file with that does not fit, so that the error can name the right
    one.

    Raises:
        RunError: a tensor is missing, has another shape, is left over or holds no real numbers, or the file contains
            several networks.
        UsageError: nothing in the file is called `key`.
    """
    state = _part({OLD_DENSENET.sub(r"\1\2", given): value for given, value in found.items()}, key, path)
    complete = [prefix for prefix in _prefixes(state, wanted) if _fits(state, prefix, wanted)]
    chosen = _chosen(state, complete, wanted, path, key) if complete else None
    over = _left_over(state, complete, wanted) if complete else []
    if chosen is None or over:
        reason = _too_much(over, chosen) if chosen is not None else _too_little(state, wanted)
        right = next((other for other, shapes in others if _is_all_of(state, shapes)), None)
        raise RunError(
            f"not the weights of {name}: {reason}",
            where=path,
            found=f"weights of {right}" if right else None,
            remedy=_remedy(right, over, chosen),
        )
    if key is None:
        _check_averages(state, complete, wanted, path)
    fitted = {inner: state[chosen + inner] for inner in wanted if chosen + inner in state}
    _check_numbers(fitted, wanted, path)
    # batch counters: older files lack them, and inference does not use them
    return fitted | {inner: tensor for inner, tensor in wanted.items() if inner not in fitted}


def flattened(
    content: Mapping[Any, Any], prefix: str = "", seen: set[int] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dictionaries, named by their path: `teacher.backbone.conv1.weight`.

    A dictionary that occurs in several places is visited once. Of lists, only averages of weights are yielded:
    `optimizer_states.0.ema.17`.
    """
    seen = set() if seen is None else seen
    seen.add(id(content))
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and id(value) not in seen:
            yield from flattened(value, f"{prefix}{key}.", seen)
        elif isinstance(value, (list, tuple)):
            numbered = flattened(dict(enumerate(value)), f"{prefix}{key}.", seen)
            yield from ((name, tensor) for name, tensor in numbered if _is_average(name))


def _is_average(name: str) -> bool:
    return any(AVERAGED.fullmatch(component) for component in name.split(".")[:-1])


def _part(state: StateDict, key: str | None, path: Path) -> StateDict:
    if key is None:
        return state
    start = "" if key == ROOT else key.rstrip(".") + "."
    part = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
    if not part:
        keys = _ending_in(start, state) or sorted({name.partition(".")[0] for name in state})
        raise UsageError(f"--weights-key: nothing in the file is called {key!r}", where=path, expected=_some(keys, 8))
    return part


def _ending_in(start: str, state: StateDict) -> list[str]:
    """Return the keys of the file that end in `start`, such as "encoder_q."."""
    inner = "." + start
    return sorted({name.partition(inner)[0] + inner.rstrip(".") for name in state if inner in name})


def _prefixes(state: StateDict, wanted: Mapping[str, Tensor]) -> list[str]:
    """Return the possible prefixes of the network, found by its first name.

    Parts in `DROPPED` are excluded, except for averages of the weights.
    """
    first = next(iter(wanted))
    found = {name.removesuffix(first) for name in state if name == first or name.endswith("." + first)}
    return sorted(p for p in found if _is_average(p) or not any(map(DROPPED.fullmatch, p.split(".")[:-1])))


def _fits(state: StateDict, prefix: str, wanted: Mapping[str, Tensor]) -> bool:
    return not any(_missing(state, prefix, wanted)) and not any(_of_another_shape(state, prefix, wanted))


def _missing(state: StateDict, prefix: str, wanted: Mapping[str, Tensor]) -> Iterator[str]:
    return (name for name in wanted if prefix + name not in state and not name.endswith("num_batches_tracked"))


def _of_another_shape(state: StateDict, prefix: str, wanted: Mapping[str, Tensor]) -> Iterator[str]:
    return (
        name for name, tensor in wanted.items() if prefix + name in state and state[prefix + name].shape != tensor.shape
    )


def _chosen(state: StateDict, prefixes: list[str], wanted: Mapping[str, Tensor], path: Path, key: str | None) -> str:
    """Return the prefix of the only network in the file; of several with equal values, the first."""
    first, *more = prefixes
    if not (key == ROOT and first == "") and any(not _equal(state, first, other, wanted) for other in more):
        choices = [prefix.rstrip(".") or ROOT for prefix in prefixes]
        raise RunError(
            f"{len(choices)} networks are in this file: {', '.join(choices)}",
            where=path,
            remedy=f"choose one with --weights-key, like --weights-key {choices[-1]}",
        )
    return first  # the shortest prefix, which is empty for a network at the top level


def _equal(state: StateDict, one: str, other: str, wanted: Mapping[str, Tensor]) -> bool:
    pairs = ((state[one + name], state[other + name]) for name in wanted if one + name in state)
    return all(a is b or torch.equal(a, b) for a, b in pairs)


def _left_over(state: StateDict, prefixes: list[str], wanted: Mapping[str, Tensor]) -> list[str]:
    """The names in the file that are neither those of the network, under any of its prefixes, nor dropped."""
    roots = {prefix[: dot.end()] for prefix in prefixes for dot in re.finditer(r"\.", prefix)} | {""}
    used = {prefix + name for prefix in prefixes for name in wanted}
    return [name for name in state if name not in used and not DERIVED.fullmatch(name) and not _dropped(name, roots)]


def _dropped(name: str, roots: Iterable[str]) -> bool:
    return any(name.startswith(root) and DROPPED.fullmatch(name.removeprefix(root).partition(".")[0]) for root in roots)


def _check_averages(state: StateDict, prefixes: list[str], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Check that no averages of the weights are dropped with the state of a training.

    Raises:
        RunError: names the first, and how to choose the weights beside them.
    """
    shapes = {tensor.shape for tensor in wanted.values() if tensor.ndim > 1}
    for name, tensor in state.items():
        inside = OF_A_TRAINING.fullmatch(name.partition(".")[0]) and _is_average(name)
        if inside and tensor.shape in shapes and not name.startswith(tuple(filter(None, prefixes))):
            raise RunError(
                f"averaged weights are in this file too, not as a whole network under its names: {name}",
                where=path,
                remedy=f"use the others with --weights-key {prefixes[0].rstrip('.') or ROOT}, "
                "or save the averaged ones as a state dict",
            )


def _is_all_of(state: StateDict, shapes: Mapping[str, Tensor]) -> bool:
    """Whether the file holds this network and nothing else but what is dropped."""
    complete = [prefix for prefix in _prefixes(state, shapes) if _fits(state, prefix, shapes)]
    return bool(complete) and not _left_over(state, complete, shapes)


def _check_numbers(fitted: StateDict, wanted: Mapping[str, Tensor], path: Path) -> None:
    """Check that tensors of real numbers are stored as such, one by one: quantized numbers lack their scale here, and
    those of a meta device are not there at all.

    Raises:
        RunError: names the first tensor that is not, and how it is stored.
    """
    for name, tensor in fitted.items():
        if wanted[name].is_floating_point() and (stored := _not_real(tensor, wanted[name])):
            raise RunError(
                f"these weights cannot be used: {name} is stored as {stored}",
                where=path,
                expected=", ".join(REAL),
                remedy="save the state dict of the network as float32, before it is quantized or converted",
            )


def _not_real(tensor: Tensor, wanted: Tensor) -> str | None:
    """How a tensor is stored other than as plain real numbers of 16 bits or more; None if it is not."""
    if tensor.is_meta and not wanted.is_meta:
        return "a shape without values (meta device)"
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    kind = str(tensor.dtype).removeprefix("torch.")
    return None if kind in REAL else kind


def _too_little(state: StateDict, wanted: Mapping[str, Tensor]) -> str:
    """By the prefix under which most of the network is found."""
    prefixes = ["", *_prefixes(state, wanted)]
    best = max(prefixes, key=lambda prefix: sum(prefix + name in state for name in wanted))
    if missing := list(_missing(state, best, wanted)):
        return f"missing: {_some(missing)}"
    other = list(_of_another_shape(state, best, wanted))
    shapes = f" ({_shape(state[best + other[0]])}, not {_shape(wanted[other[0]])})"
    return f"of another shape: {_some(other)}{shapes}"


def _too_much(over: list[str], prefix: str) -> str:
    inside = [name.removeprefix(prefix) for name in over if name.startswith(prefix)]
    return f"the file holds more than this network: {_some(inside or over)}"


def _remedy(right: str | None, over: list[str], prefix: str | None) -> str:
    if right is not None:
        return f"give --backbone {right}"
    if prefix and over and not any(name.startswith(prefix) for name in over):
        return f"if the rest is another network, select this one with --weights-key {prefix.rstrip('.')}"
    return "check --backbone"


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"


def _some(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
