"""Safetensors files that carry a digest: of names, types, shapes and bytes of the tensors, and of what the header says.

The header's one entry, `about`, is a JSON object; the digest is its entry `sha256`. Files of other programs have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mtrain.atomic import replacing
from mtrain.documents import CHANGED, DIGEST, note_unchecked
from mtrain.errors import RunError

ABOUT = "about"
AGAIN = "`mtrain fit` makes the weights of a run again; copy a file from elsewhere anew"


def write_tensors(path: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a safetensors file with `about` in its header, complete or not at all; the same input, the same bytes.

    Raises:
        RunError: the disk is full, or the like.
    """
    contiguous = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    plain = json.loads(json.dumps(about))
    header = json.dumps({**plain, DIGEST: _digest(contiguous, plain)}, sort_keys=True)
    with replacing(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        try:
            save_file(contiguous, partial, {ABOUT: header})  # one entry: it shuffles several
            partial.chmod(mode)  # it makes files that their owner alone can read
        except SafetensorError as error:  # it wraps the system's errors
            raise OSError(str(error)) from None


def read_tensors(path: Path, remedy: str = AGAIN) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors in a safetensors file, and what its header says of them: nothing in a file of others.

    Raises:
        OSError, SafetensorError: there is none, or none that can be read.
        RunError: changed since it was written.
    """
    with safe_open(path, framework="pt") as file:
        about = about_in(file)
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    stated = about.pop(DIGEST, None)
    if stated is None and about:
        note_unchecked(path)
    elif stated is not None and stated != _digest(state, about):
        raise RunError(CHANGED, where=path, remedy=remedy)
    return state, about


def about_in(file: Any) -> dict[str, Any]:
    """What `write_tensors` put into the header of an open safetensors file; nothing for a file of others."""
    try:
        about = json.loads((file.metadata() or {})[ABOUT])
    except (KeyError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold a number which is not finite."""
    return sorted(name for name, tensor in state.items() if not torch.isfinite(tensor).all())


def add_tensor(digest: Any, tensor: Tensor) -> None:
    """Update a hash with the bytes of a tensor."""
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _digest(state: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        add_tensor(digest, tensor)
    return digest.hexdigest()
