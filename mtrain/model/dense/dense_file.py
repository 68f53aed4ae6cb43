"""dense.safetensors: the decoder and convolutions that a training with masks or points writes besides the heads.

Its tensors are those of `DenseNetwork`. Its header names the modules of the shared network that output the maps,
and the classes of masks and points of each task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mtrain.data.rows import DenseTargets
from mtrain.errors import RunError
from mtrain.model.dense.dense_network import DenseNetwork
from mtrain.model.dense.maps import FeatureMap
from mtrain.model.weight_files.tensor_file import read_tensors, write_tensors
from mtrain.runs.belonging import check_part


def save_dense(path: Path, network: DenseNetwork, about: Mapping[str, Any]) -> None:
    """Write the decoder and the convolutions, with `about` in the header.

    Raises:
        RunError: the file cannot be written, for example because the disk is full.
    """
    described = {
        "levels": [asdict(level) for level in network.levels],
        "tasks": {name: _described(dense) for name, dense in network.tasks.items()},
    }
    write_tensors(path, network.state_dict(), described | dict(about))


def _described(dense: DenseTargets) -> dict[str, Any]:
    """What the decoder has maps for; instances are parts of masks."""
    return {name: value for name, value in asdict(dense).items() if name != "instances"}


def load_dense(path: Path) -> DenseNetwork:
    """Return the network that `save_dense` wrote, in evaluation mode.

    Raises:
        RunError: the file is missing or damaged.
    """
    if not path.is_file():
        raise RunError(
            "this run has no decoder of masks and points", where=path.parent, remedy="train one with --dense"
        )
    try:
        state, header = read_tensors(path)
        check_part(path, header)
        levels = [FeatureMap(**level) for level in header["levels"]]
        tasks = {
            name: DenseTargets(**fields | {kind: tuple(fields[kind]) for kind in ("seg", "points")})
            for name, fields in header["tasks"].items()
        }
        network = DenseNetwork(levels, tasks)
        network.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RunError(f"not the decoder of a run: {error}", where=path) from None
    return network.eval()
