"""Safetensors files with a digest of the header and of the names, types, shapes and bytes of the tensors.

The header's only entry, `about`, is a JSON object whose entry `sha256` is the digest. Files written by other programs
have no digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mtrain.disk.atomic import replacing
from mtrain.disk.documents import ABOUT, CHANGED, DIGEST, note_unchecked, tensor_header
from mtrain.errors import RunError

VARIANCES = "running_var"  # buffers of batch normalization
OS_ERROR = re.compile(r"\(os error (\d+)\)")
AGAIN = "`mtrain fit` recreates the weights of a run; copy a file from elsewhere again"


def write_tensors(path: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a safetensors file atomically, with `about` in its header. Equal input gives equal bytes.

    Raises:
        RunError: the file cannot be written, for example because the disk is full.
    """
    contiguous = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    plain = json.loads(json.dumps(about))
    header = json.dumps({**plain, DIGEST: _digest(contiguous, plain)}, sort_keys=True)
    with replacing(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        try:
            save_file(contiguous, partial, {ABOUT: header})  # save_file shuffles several entries
            partial.chmod(mode)  # save_file makes the file readable by its owner only
        except SafetensorError as error:  # save_file wraps OSError
            raise _of_system(error) from None


def _of_system(error: SafetensorError) -> OSError:
    """The error of the operating system that safetensors wraps, by the number at the end of its text."""
    found = OS_ERROR.search(str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else OSError(str(error))


def read_tensors(path: Path, remedy: str = AGAIN) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a safetensors file and its `about`, which is empty in files of other programs.

    Raises:
        OSError, SafetensorError: the file does not exist or cannot be read.
        RunError: the file has changed since it was written.
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
    """Return the `about` that `write_tensors` put into the header of an open file; empty if it has none."""
    return tensor_header(file.metadata())


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that contain NaN or infinity."""
    return sorted(name for name, tensor in state.items() if not torch.isfinite(tensor).all())


def fault_of(state: Mapping[str, Tensor]) -> str | None:
    """Return why a network with these weights and buffers answers nothing: a phrase that names a tensor; else None."""
    if broken := not_finite(state):
        return f"weights that are not finite: {broken[0]}"
    if broken := sorted(name for name, tensor in state.items() if name.endswith(VARIANCES) and (tensor < 0).any()):
        return f"negative variances of batch normalization: {broken[0]}"
    matrices = [tensor for tensor in state.values() if tensor.ndim > 1 and tensor.is_floating_point()]
    if matrices and not any(tensor.any() for tensor in matrices):
        return "weights that are all zero"
    return None


def add_tensor(digest: Any, tensor: Tensor) -> None:
    """Update a hash with the bytes of a tensor."""
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _digest(state: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        add_tensor(digest, tensor)
    return digest.hexdigest()
