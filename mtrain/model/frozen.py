"""Features of a frozen network in inference mode: computed, checked, and read back from the file that keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from dpconvert.runtime.progress import Reporter
from mtrain.data.batches.image_batches import OrderedBatches
from mtrain.data.batches.images import Images
from mtrain.data.rows import Rows
from mtrain.data.task import Task
from mtrain.errors import DivergedError, RunError
from mtrain.model.inference import LOADED, Inference, outputs
from mtrain.model.network import SharedNetwork
from mtrain.model.recorded_network import repeated
from mtrain.model.weight_files.tensor_file import read_tensors, write_tensors
from mtrain.model.weight_files.weights import StateDict, state_digest

FEATURES, KEY = "features", "key"
Features = NDArray[np.float32]


def weights_digest(network: SharedNetwork) -> str:
    """A digest of everything that the network's output depends on: parameters, buffers, normalization and its table."""
    return saved_digest(network, network.body.state_dict())


def saved_digest(network: SharedNetwork, body: StateDict) -> str:
    """The digest of the network with this state of its body: what `weights_digest` returns once it is loaded."""
    table = () if network.card is None else (network.card.digest,)
    state = {f"body.{name}": tensor for name, tensor in body.items()}
    return state_digest({**state, "mean": network.mean, "std": network.std}, network.name, *table)


def stored(path: Path, shape: tuple[int, int], dtype: str, report: Reporter) -> Features | None:
    """The array at `path`, memory-mapped; None if it does not exist, is damaged or has another shape or type."""
    try:
        tensors, about = read_tensors(path, "they are computed again")
        found: Features = tensors[FEATURES].numpy()
    except FileNotFoundError:
        return None
    except RunError as error:
        report.note(str(error))
        return None
    except (OSError, SafetensorError, KeyError) as error:
        report.note(f"{path}: features that cannot be read: {error}; they are computed again")
        return None
    if about.get(KEY, path.stem) != path.stem:
        report.note(f"{path}: features of other images or another network; they are computed again")
        return None
    return found if found.shape == shape and found.dtype == dtype else None


def store(path: Path, found: NDArray[Any], task: Task, split: str) -> None:
    """Write features to `path`, whose name states what they depend on.

    Raises:
        RunError: they cannot be written.
    """
    write_tensors(path, {FEATURES: torch.from_numpy(found)}, {"task": task.name, "set": split, KEY: path.stem})


def computed(
    network: SharedNetwork,
    task: Task,
    rows: Rows,
    split: str,
    *,
    size: int,
    workers: int,
    inference: Inference,
    report: Reporter,
) -> Features:
    """The features of these rows, (rows, num_features): of the central square of each image, resized to `size`.

    split: the name of the rows in the progress bar.
    """
    network = network.eval().to(inference.device).to(memory_format=torch.channels_last)
    found = np.empty((len(rows), network.num_features), np.float32)
    dataset = OrderedBatches(Images([(task, rows)], how=network.interpolation), size, LOADED)
    done = 0
    with report.bar(f"{task.name}: features of {split}", len(rows)) as advance:
        for some in outputs(
            repeated(lambda images: network(network.normalize(images)), inference),
            dataset,
            inference,
            workers=workers,
            how=network.interpolation,
        ):
            found[done : done + len(some)] = some
            done += len(some)
            advance(len(some))
    return found


def check_features(found: Features, task: Task, rows: Rows, split: str, weights: str) -> None:
    """Raises:
    DivergedError: features that no classifier can use: some are not finite, or those of different images are equal.
    """
    images = rows.sha256
    if (images != images[:1]).any() and (found == found[:1]).all():
        raise DivergedError(
            f"{task.name}: the features of all {len(found)} images of {split} are equal",
            where=weights,
            remedy="no classifier can use them: give other weights",
        )
    broken = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(broken):
        raise DivergedError(
            f"{task.name}: features that are not finite, of {len(broken)} of {len(found)} images of {split}, "
            f"the first {rows.key[broken[0]]}",
            where=weights,
            remedy="no classifier can use them: give other weights",
        )
