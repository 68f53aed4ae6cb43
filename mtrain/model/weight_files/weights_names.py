"""Rename tensors from the names of a network's authors to those of timm, by the naming tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mtrain.backbones.card import Naming
from mtrain.errors import RunError
from mtrain.model.weight_files.weights_fit import StateDict

PREFIX = r"((?:.+?\.)?)"  # any prefix: module., teacher.backbone., ...
PART = re.compile(r"(.+)@(\d+)")
POSITIONS, CLASS = "pos_embed", "cls_token"


def in_own_names(found: StateDict, wanted: Mapping[str, Tensor], namings: Iterable[Naming], path: Path) -> StateDict:
    """Return `found`, renamed by the naming that yields the most names in `wanted` if any yields more than no renaming.

    Raises:
        RunError: the parts of a tensor do not fit together.
    """
    best, most = found, _matching(found, wanted)
    for naming in namings:
        renamed = renamed_by(naming, found, wanted, path)
        if (matching := _matching(renamed, wanted)) > most:
            best, most = renamed, matching
    return best


def renamed_by(naming: Naming, found: StateDict, wanted: Mapping[str, Tensor], path: Path) -> StateDict:
    """Return the tensors under their new names; those without an entry in the table keep theirs.

    Raises:
        RunError: the parts of a tensor do not fit together, or two tensors get the same name.
    """
    dropped = re.compile("|".join(f"{PREFIX}(?:{pattern})" for pattern in naming.drop) or r"(?!)")
    rules = [(re.compile(PREFIX + f"(?:{pattern})"), _shifted(new)) for pattern, new in naming.rename.items()]
    state: StateDict = {}
    for name, tensor in found.items():
        if dropped.fullmatch(name):
            continue
        new = _renamed(name, rules)
        if new in state:
            raise RunError(f"two tensors in this file become {new}, the second is {name}", where=path)
        state[new] = tensor
    whole = _put_together(state, path)
    return _folded(whole, wanted) if naming.fold_class_position else whole


def _renamed(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, new in rules:
        if match := pattern.fullmatch(name):
            name = match.expand(r"\g<1>" + new)
    return name


def _shifted(new: str) -> str:
    """Renumber the groups of a replacement to start at 2, since group 1 is the prefix."""
    return re.sub(r"\\(\d+)", lambda found: rf"\g<{int(found[1]) + 1}>", new)


def _put_together(state: StateDict, path: Path) -> StateDict:
    whole: StateDict = {}
    parts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state.items():
        if part := PART.fullmatch(name):
            parts.setdefault(part[1], {})[int(part[2])] = tensor
        else:
            whole[name] = tensor
    number = max((len(of) for of in parts.values()), default=0)
    for name, of in parts.items():
        if name in whole or sorted(of) != list(range(number)):
            raise RunError(f"parts of {name} are missing from this file", where=path)
        try:
            whole[name] = torch.cat([of[part] for part in range(number)])
        except RuntimeError:
            shapes = ", ".join(str(tuple(of[part].shape)) for part in range(number))
            raise RunError(f"the parts of {name} do not go together: {shapes}", where=path) from None
    return whole


def _folded(state: StateDict, wanted: Mapping[str, Tensor]) -> StateDict:
    """Add the class token's position to the class token if the network has position embeddings of patches only."""
    room = wanted[POSITIONS].shape[1] if POSITIONS in wanted else None
    for name in [name for name in state if name == POSITIONS or name.endswith("." + POSITIONS)]:
        positions, beside = state[name], name.removesuffix(POSITIONS) + CLASS
        if positions.ndim == 3 and room == positions.shape[1] - 1 and beside in state:
            state |= {name: positions[:, 1:], beside: state[beside] + positions[:, :1]}
    return state


def _matching(state: StateDict, wanted: Mapping[str, Tensor]) -> int:
    """Return the number of wanted names that are found under the most common prefix."""
    first = next(iter(wanted))
    prefixes = {"", *(name.removesuffix(first) for name in state if name.endswith("." + first))}
    return max(sum(prefix + name in state for name in wanted) for prefix in prefixes)
