"""Finds similar pairs by the features of a network, as `mtrain features` writes them.

<folder>/<Task>-<split>.npy   (samples, numbers)
<folder>/<Task>-<split>.csv   key, label, group of each row

A network recognises what waves do not: crops, other stains, elastic deformations. Here a hash consists of the signs of
random projections (Charikar, STOC 2002). It is looked up like the signs of waves, but in one orientation only.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpconvert.errors import UsageError
from dpconvert.tasks.audit.findings import SamplePair
from dpconvert.tasks.audit.nearest import AT_ONCE, HASHED, ORDERS, candidates
from dpconvert.tasks.audit.samples import AuditedSamples

ALIKE = 0.98  # cosine of centred features
DAMAGED = (OSError, ValueError, EOFError, KeyError, csv.Error)


def pairs(folder: Path, samples: AuditedSamples, *, alike: float = ALIKE) -> Iterator[SamplePair]:
    """Pairs of samples with similar features, among those that have features in the folder.

    Raises:
        UsageError: the features are missing, damaged, or from several networks.
    """
    places, rows = _read(folder, samples)
    centred = rows - rows.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    planes = np.random.default_rng(0).standard_normal((rows.shape[1], HASHED * HASHED), dtype=np.float32)
    near = candidates(centred @ planes > 0, ORDERS, seed=0, turned=False)
    for start in range(0, len(near), AT_ONCE):
        chunk = near[start : start + AT_ONCE]
        cosine = np.einsum("ij,ij->i", centred[chunk[:, 0]], centred[chunk[:, 1]])
        similar = cosine >= alike
        for (one, other), likeness in zip(places[chunk[similar]].tolist(), cosine[similar], strict=True):
            yield SamplePair(min(one, other), max(one, other), "features", float(min(likeness, 1.0)))


def _read(folder: Path, samples: AuditedSamples) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The numbers of the samples that have features: (n,), and the features: (n, dimensions)."""
    places, arrays = [], []
    for task, card in enumerate(samples.cards):
        of_task = np.flatnonzero(samples.task == task)
        number = dict(zip(samples.key[of_task], of_task.tolist(), strict=True))
        for path in sorted(folder.glob(f"{card.task}-*.npy")):
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                with path.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
                    places += [number[row["key"]] for row in csv.DictReader(file)]
                arrays.append(np.asarray(array, np.float32))
                if array.ndim != 2 or sum(map(len, arrays)) != len(places) or array.shape[1] != arrays[0].shape[1]:
                    raise ValueError("they belong to another network or to other samples")
            except DAMAGED as error:
                raise UsageError(f"not features of these tasks: {error}", where=path) from None
    if not arrays:
        remedy = f"write them with: mtrain features --task {samples.cards[0].task} --out {folder}"
        raise UsageError("no features of these tasks in this folder", where=folder, remedy=remedy)
    return np.array(places, np.int64), np.concatenate(arrays)
