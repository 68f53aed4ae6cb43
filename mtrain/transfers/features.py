"""Features of a frozen network, computed once and cached on disk under a digest of everything that they depend on."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from dpconvert.runtime.progress import Reporter
from mtrain.atomic import replacing
from mtrain.data.loader import ordered_batches
from mtrain.data.task import Rows, Task, fetch_shards
from mtrain.documents import short_digest
from mtrain.errors import DivergedError, RunError, UsageError
from mtrain.model.devices import find_device
from mtrain.model.network import SharedNetwork
from mtrain.model.tensor_file import read_tensors, write_tensors
from mtrain.model.weights import state_digest

BATCH = 64
FEATURES = "features"
Features = NDArray[np.float32]


def weights_digest(network: SharedNetwork) -> str:
    """A digest of everything that the network's output depends on: parameters, buffers, normalization and its table."""
    table = () if network.card is None else (network.card.digest,)
    return state_digest({**network.state_dict(), "mean": network.mean, "std": network.std}, network.name, *table)


def features(
    network: SharedNetwork, task: Task, split: str, *, size: int, cache: Path, workers: int, report: Reporter,
    dtype: str = "float32", device: str = "auto", weights: str = "these weights",
) -> Features:  # fmt: skip
    """The features of one split: (samples, num_features) in the order of its rows, memory-mapped from the cache.

    Images are cropped to their central square, resized to `size` and normalized; the network is in inference mode.

    weights: the name of the weights in error messages.

    Raises:
        DivergedError: some features are not finite, or those of different images are equal.
        UsageError: some features are too large for float16.
        ShardError, RunError: remote shards cannot be downloaded.
    """
    what = f"{weights_digest(network)} {task.card.digest} {split} {size} centre-square {network.interpolation}"
    what += "" if dtype == "float32" else f" {dtype}"
    path = cache / f"{task.name}-{split}-{short_digest(what)}.safetensors"
    shape = (len(task.rows[split]), network.num_features)
    found = _cached(path, shape, dtype, report)
    if found is None:
        fetch_shards([task], [split], report)
        computed = _computed(network, task, split, size, workers, find_device(device), report)
        _check(computed, task, split, weights)
        write_tensors(path, {FEATURES: torch.from_numpy(_as(computed, dtype))}, {"task": task.name, "set": split})
        found = _cached(path, shape, dtype, report)
    assert found is not None
    _check(found, task, split, weights)
    return found


def write_features(found: Features, rows: Rows, path: Path) -> None:
    """Write the array to `path` (.npy), and key, label and group of each row to a .csv file beside it."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, found, allow_pickle=False)
    with replacing(path.with_suffix(".csv")) as partial, partial.open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text)
        writer.writerow(["key", "label", "group"])
        writer.writerows(zip(rows.key, rows.label.tolist(), rows.group, strict=True))


def _check(computed: Features, task: Task, split: str, weights: str) -> None:
    """Raises:
    DivergedError: features that no classifier can use: some are not finite, or those of different images are equal.
    """
    images = task.rows[split].sha256
    if (images != images[:1]).any() and (computed == computed[:1]).all():
        raise DivergedError(
            f"{task.name}: the features of all {len(computed)} images of {split} are equal", where=weights,
            remedy="no classifier can use them: give other weights",
        )  # fmt: skip
    broken = np.flatnonzero(~np.isfinite(computed).all(axis=1))
    if len(broken):
        raise DivergedError(
            f"{task.name}: features that are not finite, of {len(broken)} of {len(computed)} images of {split}, "
            f"the first {task.rows[split].key[broken[0]]}",
            where=weights, remedy="no classifier can use them: give other weights",
        )  # fmt: skip


def _as(computed: Features, dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        found = computed.astype(dtype)
    if dtype == "float16" and not np.isfinite(found[np.isfinite(computed)]).all():
        raise UsageError("these features are too large for float16", remedy="use float32")
    return found


def _cached(path: Path, shape: tuple[int, int], dtype: str, report: Reporter) -> Features | None:
    """The array at `path`; None if it does not exist, is damaged or has another shape or type."""
    try:
        found: Features = read_tensors(path, "they are computed again")[0][FEATURES].numpy()
    except FileNotFoundError:
        return None
    except RunError as error:
        report.note(str(error))
        return None
    except (OSError, SafetensorError, KeyError) as error:
        report.note(f"{path}: features that cannot be read: {error}; they are computed again")
        return None
    return found if found.shape == shape and found.dtype == dtype else None


@torch.inference_mode()
def _computed(
    network: SharedNetwork, task: Task, split: str, size: int, workers: int, device: torch.device, report: Reporter
) -> NDArray[np.float32]:
    rows = task.rows[split]
    network = network.eval().to(device).to(memory_format=torch.channels_last)
    found = np.empty((len(rows), network.num_features), np.float32)
    with report.bar(f"{task.name}: features of {split}", len(rows)) as advance:
        for images, places in ordered_batches(
            task, rows, size=size, batch=BATCH, workers=workers, device=device, how=network.interpolation
        ):
            found[places] = network(network.normalize(images)).float().cpu().numpy()
            advance(len(places))
    return found
